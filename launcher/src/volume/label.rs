//! What a disk says it is: the signatures of file systems, partition tables and containers of such.
//!
//! Offsets and values: util-linux libblkid, `superblocks` and `partitions`. The list is of what people keep data in; an
//! encrypted scratch volume looks like noise and matches nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Name, offset in bytes, signature.
const LABELS: [(&str, u64, &[u8]); 18] = [
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("an XFS file system", 0, b"XFSB"),
    ("a squashfs file system", 0, b"hsqs"),
    ("a BitLocker volume", 3, b"-FVE-FS-"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a partition table", 510, b"\x55\xaa"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an EROFS file system", 1024, b"\xe2\xe1\xf5\xe0"),
    ("an F2FS file system", 1024, b"\x10\x20\xf5\xf2"),
    ("an ext2, ext3 or ext4 file system", 1080, b"\x53\xef"),
    ("a part of an md array", 4096, b"\xfc\x4e\x2b\xa9"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("a bcachefs or bcache device", 4120, b"\xc6\x85\x73\xf6"),
    ("a btrfs file system", 0x10040, b"_BHRfS_M"),
    ("a part of a ZFS pool", 0x20400, b"\x0c\xb1\xba\x00"),
];

/// The first label that is there. A disk too small for one does not have it.
pub(crate) fn find(disk: &File) -> io::Result<Option<&'static str>> {
    for (name, offset, signature) in LABELS {
        let mut found = vec![0; signature.len()];
        match disk.read_exact_at(&mut found, offset) {
            Ok(()) if found == signature => return Ok(Some(name)),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
