//! Launches that nobody wrote: synthetic firmware with footers and metadata as OVMF has them, in every order that a parser
//! must take, and whatever may be booted.

use proptest::prelude::*;

/// A section of the SEV metadata: its type, its size in pages, and how many pages are free before it.
pub(crate) type Section = (u32, u32, u32);

/// What the pages of the image hold. Firmware is mostly padding, so runs of equal pages are frequent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Page {
    Fill(u8),
    Noise(u32),
}

/// One launch.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// All pages but the last, which holds table and metadata.
    pub(crate) pages: Vec<Page>,
    /// Sections before and after that for the kernel hashes.
    pub(crate) sections: (Vec<Section>, Vec<Section>),
    /// Entries of the table that nobody knows, by their length, and how the known ones stand among them.
    pub(crate) foreign: Vec<usize>,
    pub(crate) rotation: usize,
    pub(crate) kernel: Option<(Vec<u8>, Option<Vec<u8>>, String)>,
    pub(crate) reset_eip: u32,
    pub(crate) table_offset: u32,
    pub(crate) signature: u32,
    pub(crate) sev_features: u64,
    pub(crate) vcpus: u32,
    pub(crate) vmm: usize,
}

/// As unassuming as a case can be: exceptions are shown on changes of it.
pub(crate) fn plain() -> Case {
    Case {
        pages: vec![Page::Fill(0xff); 2],
        sections: (vec![(1, 2, 0), (2, 1, 0), (3, 1, 0)], vec![]),
        foreign: vec![],
        rotation: 0,
        kernel: Some((b"kernel".to_vec(), None, "console=ttyS0".to_owned())),
        reset_eip: 0x80_b004,
        table_offset: 0xc00,
        signature: 0x80_0f12,
        sev_features: 1,
        vcpus: 2,
        vmm: 0,
    }
}

/// Any case that both judges can take; `lines` is what they take as a command line.
pub(crate) fn case(
    lines: impl Strategy<Value = String>,
    signatures: impl Strategy<Value = u32>,
) -> impl Strategy<Value = Case> {
    let page = prop_oneof![Just(Page::Fill(0)), Just(Page::Fill(0xff)), any::<u32>().prop_map(Page::Noise)];
    let pages = prop::collection::vec((page, 1..4_usize), 0..5)
        .prop_map(|runs| runs.into_iter().flat_map(|(page, count)| vec![page; count]).collect::<Vec<_>>());
    let section = || {
        let kind = prop_oneof![(Just(1), 0..5_u32), (Just(4), 0..3_u32), (Just(2), Just(1)), (Just(3), Just(1))];
        prop::collection::vec((kind, 0..3_u32).prop_map(|((kind, pages), gap)| (kind, pages, gap)), 0..5)
    };
    let file = || prop::collection::vec(any::<u8>(), 0..2000);
    let kernel = prop::option::of((file(), prop::option::of(file()), lines));
    let image = (pages, (section(), section()), prop::collection::vec(0..40_usize, 0..4), 0..8_usize);
    let offset = prop_oneof![Just(0xc00), 0..=(4096 - 176_u32)];
    let features = prop_oneof![Just(1), Just(0x21), Just(0x201), any::<u64>()];
    let shape = (1..=u32::MAX, offset, signatures, features, prop_oneof![1..5_u32, 1..200_u32], 0..3_usize);
    (image, kernel, shape).prop_map(|((pages, sections, foreign, rotation), kernel, shape)| {
        let (reset_eip, table_offset, signature, sev_features, vcpus, vmm) = shape;
        Case {
            pages,
            sections,
            foreign,
            rotation,
            kernel,
            reset_eip,
            table_offset,
            signature,
            sev_features,
            vcpus,
            vmm,
        }
    })
}

/// Command lines without blanks at either end.
pub(crate) fn trimmed() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{1,20}( [ -~]{0,40}[!-~])?", Just(String::new())]
}

/// Command lines as people get them wrong: blanks, tabs and newlines anywhere, quotes, letters that are not ASCII, long ones.
pub(crate) fn odd() -> impl Strategy<Value = String> {
    prop_oneof![
        trimmed(),
        "[ \t\n\r]{0,3}[!-~]{0,10}[ \t\n\r]{0,3}",
        "root=\"[ -~]{0,20}\"\n",
        "[äß€日\u{1F600}\u{a0}\u{2003} ]{0,8}",
        "[a-z=. ]{1500,2100}",
    ]
}

/// The image: its pages, and in the last one metadata, table and reset vector.
pub(crate) fn image(case: &Case) -> Vec<u8> {
    let mut image = Vec::new();
    for page in &case.pages {
        match page {
            Page::Fill(byte) => image.extend([*byte; 4096]),
            Page::Noise(seed) => {
                image.extend((0..1024_u32).flat_map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9 ^ seed).to_le_bytes()));
            }
        }
    }
    let (metadata, hash_page) = metadata(case);
    let table = table(case, hash_page);
    let end = image.len() + 4096;
    image.resize(end, 0x90);
    image[end - 1024..end - 1024 + metadata.len()].copy_from_slice(&metadata);
    image[end - 32 - table.len()..end - 32].copy_from_slice(&table);
    image
}

/// The SEV metadata, and the address of the page for the kernel hashes.
fn metadata(case: &Case) -> (Vec<u8>, u32) {
    let (before, after) = &case.sections;
    let mut gpa = 0x80_0000_u32;
    let (mut words, mut hash_page) = (vec![], 0);
    for (kind, pages, gap) in before.iter().chain([&(0x10, 1, 0)]).chain(after) {
        gpa += gap * 4096;
        words.extend([gpa, pages * 4096, *kind]);
        if *kind == 0x10 {
            hash_page = gpa;
        }
        gpa += pages * 4096;
    }
    let count = u32::try_from(words.len() / 3).unwrap();
    let header = [u32::from_le_bytes(*b"ASEV"), 16 + count * 12, 1, count];
    (header.into_iter().chain(words).flat_map(u32::to_le_bytes).collect(), hash_page)
}

/// The table of GUIDs at the end of the image, which is read backwards from its footer.
fn table(case: &Case, hash_page: u32) -> Vec<u8> {
    const FOOTER: &str = "de82b596b21ff745baeaa366c55a082d";
    const SEV: &str = "666588dc4a989847a75e5585a7bf67cc";
    const RESET: &str = "de71f7007e1acb4f890e68c77e2fb44e";
    const HASHES: &str = "1f3755723b3a044b927b1da6efa8d454";
    let entry = |guid: &[u8], data: &[u8]| {
        let length = u16::try_from(data.len() + 18).unwrap();
        [data, &length.to_le_bytes(), guid].concat()
    };
    let known = |guid: &str, data: &[u8]| entry(&hex::decode(guid).unwrap(), data);
    let area = [hash_page + case.table_offset, 0x400].map(u32::to_le_bytes).concat();
    let mut entries =
        vec![known(HASHES, &area), known(SEV, &1024_u32.to_le_bytes()), known(RESET, &case.reset_eip.to_le_bytes())];
    let foreign = (1_u8..).zip(&case.foreign);
    entries.extend(foreign.map(|(number, length)| entry(&[number; 16], &vec![number; *length])));
    let count = entries.len();
    entries.rotate_left(case.rotation % count);
    let mut table = entries.concat();
    let length = u16::try_from(table.len() + 18).unwrap();
    table.extend([&length.to_le_bytes()[..], &hex::decode(FOOTER).unwrap()].concat());
    table
}
