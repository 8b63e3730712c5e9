//! What a TEE should measure when a VM is launched, by the predictions of `weigh`; and what follows, by the same rules, from what
//! the guest of a simulated launch read.

use std::path::{Path, PathBuf};

use launcher::Image;
use launcher::qemu::oracle::{Answer as Told, ConfigWrite, Devices};
use launcher::simulation::{self, SimulationReport};
use measure::shape::Boot;
use measure::tdx::registers;
use serde_json::{Map, Value};
use spec::Tee;
use spec::manifest::{Manifest, artifact};
use spec::vm::Vm;
use store::Store;

use crate::args::QemuChoice;
use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::inputs;
use crate::weigh::disk::DiskFile;
use crate::weigh::machine::Oracle;
use crate::weigh::prediction::expected_firmware;
use crate::weigh::reference::boot_files;
use crate::weigh::registers::{BootFiles, KnownFirmware};
use crate::weigh::{self, SnpWanted};

/// What the TEE should measure.
pub(super) struct Expected {
    /// Its name in JSON.
    pub(super) key: &'static str,
    /// Its name as the vendor writes it.
    pub(super) register: &'static str,
    /// Lower-case hex.
    pub(super) value: String,
    /// What firmware and kernel should measure of a TD, where that is predicted.
    pub(super) rtmrs: Option<Rtmrs>,
    /// Why it is not, where it was tried.
    pub(super) not_predicted: Option<String>,
}

/// RTMR0 to RTMR2, and what they were predicted from.
pub(super) struct Rtmrs {
    pub(super) values: RtmrValues,
    /// Where firmware places the PCI devices.
    pub(super) placement: Vec<ConfigWrite>,
    /// The other value that RTMR1 may have, of a disk.
    other_rtmr1: Option<String>,
    /// Where the image is.
    directory: PathBuf,
    firmware: FirmwareFile,
    memory_mib: u64,
    qemu_version: Option<[u64; 3]>,
    boot: Boot,
}

/// RTMR0 to RTMR2 in lower-case hex, or RTMR0 alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RtmrValues(pub(super) Vec<String>);

const KEYS: [&str; 3] = ["rtmr0", "rtmr1", "rtmr2"];

impl Expected {
    /// Of the launch itself. RTMRs are added by [`Rtmrs::predict`].
    pub(super) fn of_launch(vm: &Vm, image: &Image) -> Result<Option<Self>, Failure> {
        if !Self::can_be(vm, image) {
            return Ok(None);
        }
        let (directory, manifest) = (&image.directory, &image.manifest);
        let (key, register, value) = match vm.tee {
            Tee::Snp => ("launch_digest", "MEASUREMENT", snp_digest(vm, directory, manifest)?),
            Tee::Tdx => ("mrtd", "MRTD", Some(weigh::tdx(directory, manifest)?.mrtd.to_string())),
            Tee::None => return Ok(None),
        };
        Ok(value.map(|value| Self { key, register, value, rtmrs: None, not_predicted: None }))
    }

    /// Whether there is one to be had. The plan refuses a TEE without firmware, with its own message; a processor of the host's kind
    /// (`cpu = "host"`) is measured as it is.
    pub(super) fn can_be(vm: &Vm, image: &Image) -> bool {
        let has_firmware = |name: &str| image.manifest.artifacts.contains_key(name);
        match vm.tee {
            Tee::Snp => has_firmware(artifact::FIRMWARE_SNP) && !matches!(vm.cpu_model(), "host" | "max"),
            Tee::Tdx => has_firmware(artifact::FIRMWARE_TDX),
            Tee::None => false,
        }
    }

    /// The register and its value, as a launch compares them.
    pub(super) fn measurement(&self) -> (String, String) {
        (self.register.to_owned(), self.value.clone())
    }

    /// For JSON.
    pub(super) fn json(&self) -> Value {
        let mut values = self.rtmrs.as_ref().map_or_else(Map::new, |rtmrs| rtmrs.values.json());
        if let Some(other) = self.rtmrs.as_ref().and_then(|rtmrs| rtmrs.other_rtmr1.as_ref())
            && let Some(first) = values.remove("rtmr1")
        {
            values.insert("rtmr1_one_of".to_owned(), vec![first, other.as_str().into()].into());
        }
        values.insert(self.key.to_owned(), self.value.clone().into());
        if let Some(reason) = &self.not_predicted {
            values.insert("rtmrs_not_predicted".to_owned(), reason.clone().into());
        }
        Value::Object(values)
    }

    /// The predicted value of a register that a guest reads, by the vendor's name; with more than one, any of them is right.
    pub(super) fn of_register(&self, name: &str) -> Vec<&str> {
        if name == self.register {
            return vec![&self.value];
        }
        let number = KEYS.iter().position(|key| key.eq_ignore_ascii_case(name));
        let Some((number, rtmrs)) = number.zip(self.rtmrs.as_ref()) else { return Vec::new() };
        let other = rtmrs.other_rtmr1.as_deref().filter(|_| number == 1);
        rtmrs.values.0.get(number).map(String::as_str).into_iter().chain(other).collect()
    }
}

impl Rtmrs {
    /// Of a TD, with what this QEMU gives its firmware.
    pub(super) fn predict(vm: &Vm, image: &Image, qemu: &QemuChoice, store: &Store) -> Result<Self, Failure> {
        let firmware = weigh::image_firmware(&image.directory, &image.manifest, artifact::FIRMWARE_TDX)?;
        let memory_mib = weigh::whole_mib(vm.memory)?;
        // What is refused is refused before QEMU is asked.
        let boot = launcher::plan::shape(vm)?.boot;
        expected_firmware(boot, &image.directory, &firmware, &inputs::pins()?)?;
        let told = Oracle::new(qemu, store, Devices::of(vm)).ask(&firmware.bytes, boot, vm.vcpus, memory_mib)?;
        let mut rtmrs = Self {
            values: RtmrValues::default(),
            placement: Vec::new(),
            other_rtmr1: None,
            directory: image.directory.clone(),
            firmware,
            memory_mib,
            qemu_version: told.qemu_version,
            boot,
        };
        match boot {
            Boot::Kernel => {
                let files = boot_files(&image.directory, &image.manifest)?;
                rtmrs.values = rtmrs.follow(&told, &image.directory.join(artifact::KERNEL), &files)?;
            }
            Boot::Disk => rtmrs.of_disk(&told, &DiskFile::read(&image.directory.join(artifact::DISK))?)?,
        }
        Ok(Self { placement: told.placement, ..rtmrs })
    }

    fn of_disk(&mut self, told: &Told, disk: &DiskFile) -> Result<(), Failure> {
        let pins = inputs::pins()?;
        let mut may_be = KnownFirmware::find(&self.firmware, &pins)?.disk(disk).into_iter();
        self.values = self.follow_platform(told)?;
        let [_, rtmr1, rtmr2, _] = registers(&may_be.next().unwrap_or_default()).map(|digest| digest.to_string());
        self.values.0.extend([rtmr1, rtmr2]);
        self.other_rtmr1 = may_be.next().map(|events| registers(&events)[1].to_string());
        Ok(())
    }

    /// RTMR0 alone.
    fn follow_platform(&self, told: &Told) -> Result<RtmrValues, Failure> {
        let pins = inputs::pins()?;
        let known = expected_firmware(Boot::Disk, &self.directory, &self.firmware, &pins)?;
        let events = known.platform_of_disk(&told.fw_cfg, self.memory_mib)?;
        let [rtmr0, ..] = registers(&events);
        Ok(RtmrValues(vec![rtmr0.to_string()]))
    }

    /// What the guest of a simulated launch would have measured of what it read by fw_cfg, RTMR0 alone where firmware starts a
    /// disk; `None` where it read nothing.
    pub(super) fn of_simulation(&self, report: &SimulationReport) -> Result<Option<RtmrValues>, Failure> {
        if report.values.get("fw_cfg").is_none_or(Value::is_null) {
            return Ok(None);
        }
        let directory = simulation::fw_cfg(&report.path);
        if self.boot == Boot::Disk {
            return self.follow_platform(&Told::import(&directory)?).map(Some);
        }
        let path = |name: &str| directory.join(name);
        let line = inputs::read_text(&path("cmdline_data"))?;
        let kernel = path("etc/boot/kernel");
        let boot = BootFiles::read(&kernel, Some(&path("initrd_data")), line.trim_end_matches('\0'))?;
        self.follow(&Told::import(&directory)?, &kernel, &boot).map(Some)
    }

    /// Of a kernel, which firmware with enrolled keys verifies.
    fn follow(&self, told: &Told, kernel: &Path, boot: &BootFiles) -> Result<RtmrValues, Failure> {
        let pins = inputs::pins()?;
        let known = KnownFirmware::find(&self.firmware, &pins)?.starting(kernel)?;
        let mut events = known.platform(&told.fw_cfg, self.memory_mib)?;
        events.extend(known.image(boot, self.qemu_version)?);
        let [rtmr0, rtmr1, rtmr2, _] = registers(&events);
        Ok(RtmrValues([rtmr0, rtmr1, rtmr2].map(|digest| digest.to_string()).into()))
    }
}

impl RtmrValues {
    /// For JSON.
    pub(super) fn json(&self) -> Map<String, Value> {
        KEYS.iter().zip(&self.0).map(|(key, value)| ((*key).to_owned(), value.clone().into())).collect()
    }

    /// The names of those that differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let pairs = KEYS.iter().zip(self.0.iter().zip(&other.0));
        pairs.filter(|(_, (one, other))| one != other).map(|(key, _)| *key).collect()
    }
}

/// The launch digest.
fn snp_digest(vm: &Vm, directory: &Path, manifest: &Manifest) -> Result<Option<String>, Failure> {
    let wanted = SnpWanted {
        vcpus: &[vm.vcpus],
        cpus: &[vm.cpu_model().to_owned()],
        signature: None,
        sev_features: measure::shape::SnpShape::SNP_ACTIVE,
    };
    Ok(weigh::snp(directory, manifest, &wanted)?.first().map(|reference| reference.launch_digest.to_string()))
}
