//! What the two programs are known to get wrong. Each is shown on a case, so that one that is mended is noticed and taken
//! off the list; with the change of that case undone, all three agree.

use measure::firmware::Firmware;
use measure::snp::{profile, sev};

use super::generator::{Case, image, plain};
use super::judges::{SevSnpMeasure, crate_sev, write_files};
use super::{kernel_hashes, ours, vcpu};

/// Who is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    CrateSev,
    Both,
}

struct Defect {
    who: Wrong,
    reason: &'static str,
    change: fn(&mut Case),
}

fn line(case: &mut Case, line: &str) {
    if let Some((_, _, old)) = &mut case.kernel {
        *old = line.to_owned();
    }
}

const DEFECTS: [Defect; 9] = [
    Defect {
        who: Wrong::CrateSev,
        reason: "it trims the command line; QEMU hashes it as it is",
        change: |case| line(case, "console=ttyS0 "),
    },
    Defect { who: Wrong::CrateSev, reason: "it trims newlines too", change: |case| line(case, "console=ttyS0\n") },
    Defect {
        who: Wrong::CrateSev,
        reason: "its EC2 is that of 2023, with RDX 0; the other program and live guests have 0x600",
        change: |case| case.vmm = 1,
    },
    Defect {
        who: Wrong::Both,
        reason: "crate sev reads one byte of a section's type and takes 0x102 for SECRETS; the other program stops; QEMU \
                 launches zeroed pages",
        change: |case| case.sections.0.push((0x102, 1, 0)),
    },
    Defect {
        who: Wrong::Both,
        reason: "types that they do not know are errors; QEMU launches zeroed pages",
        change: |case| case.sections.0.push((0x200, 1, 0)),
    },
    Defect {
        who: Wrong::Both,
        reason: "a SECRETS section is one page whatever its size; QEMU launches all of it",
        change: |case| case.sections.0[1] = (2, 2, 0),
    },
    Defect {
        who: Wrong::Both,
        reason: "a CPUID section is one page whatever its size; QEMU launches all of it",
        change: |case| case.sections.0[2] = (3, 3, 0),
    },
    Defect {
        who: Wrong::Both,
        reason: "a CPUID section of no size is one page; QEMU has nothing to launch",
        change: |case| case.sections.0[2] = (3, 0, 0),
    },
    Defect {
        who: Wrong::Both,
        reason: "without a place to start, crate sev leaves out the second vCPU and the other program ends with an error of \
                 its own; we refuse",
        change: |case| case.reset_eip = 0,
    },
];

#[test]
fn known_defects_are_still_there() {
    let mut judge = SevSnpMeasure::start();
    let folder = tempfile::tempdir().unwrap();
    let mut agree = |case: &Case| {
        let image = image(case);
        write_files(case, &image, folder.path());
        let ours = ours(case, &image);
        let command = judge.as_mut().map(|judge| judge.ask("snp", case, folder.path()) == ours);
        (crate_sev(case, folder.path()) == ours, command)
    };
    let (crate_sev, command) = agree(&plain());
    assert!(crate_sev && command != Some(false), "the case that defects are shown on");
    for defect in DEFECTS {
        let mut case = plain();
        (defect.change)(&mut case);
        let (crate_sev, command) = agree(&case);
        assert!(!crate_sev, "crate sev is right now: {}", defect.reason);
        if let Some(command) = command {
            assert_eq!(command, defect.who == Wrong::CrateSev, "sev-snp-measure: {}", defect.reason);
        }
    }
}

/// QEMU launches SEV-ES guests with the older VM type unless told otherwise, and KVM then leaves the FPU's fields at zero;
/// the program has those of the newer type for all.
#[test]
fn sev_es_of_the_older_vm_type_is_not_what_the_program_says() {
    let Some(mut judge) = SevSnpMeasure::start() else { return };
    let (case, folder) = (plain(), tempfile::tempdir().unwrap());
    let image = image(&case);
    write_files(&case, &image, folder.path());
    let firmware = Firmware::parse(&image).unwrap();
    let (hashes, vcpu) = (kernel_hashes(&case), vcpu(&case));
    let of =
        |profile| sev::es_launch_digest(&firmware, hashes.as_ref(), &vcpu, case.vcpus, profile).unwrap().to_string();
    let answer = judge.ask("seves", &case, folder.path());
    assert_eq!(answer, of(&profile::QEMU_KVM));
    assert_ne!(answer, of(&profile::QEMU_KVM_NO_FPU_SYNC));
}
