//! From the facts of a host and the needs of a VM to the steps that make the host ready, and to what stands in their way.
//!
//! Without a VM the host is made ready for guests in general: modules, and who may open their devices. PCI functions and huge
//! pages are set aside for a VM only.

use spec::{PciAddress, Tee};

use super::device::Device;
use super::files::{self, PersistentFile};
use super::machine::Machine;
use super::modules::{self, Module};
use super::{Group, Pool, Step, change};
use crate::host::HostFacts;
use crate::host::check::{Line, Needs, obstacle, unfit};

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Preparation {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// What stands in the way: with one of these nothing is done.
    pub refusals: Vec<Line>,
    /// What is left to the administrator.
    pub notes: Vec<String>,
}

/// What is wanted, whether it is so already or not.
struct Wish<'a, M> {
    machine: &'a M,
    facts: &'a HostFacts,
    needs: Option<&'a Needs>,
    wanted: Vec<Step>,
    preparation: Preparation,
}

/// Decides what is to be done on a host for a VM, or for guests in general; `group` shall be able to launch; with `persist`
/// all of it lasts over a start of the host.
pub fn steps(
    machine: &impl Machine,
    facts: &HostFacts,
    needs: Option<&Needs>,
    group: Option<&Group>,
    persist: bool,
) -> Preparation {
    let mut wish = Wish { machine, facts, needs, wanted: Vec::new(), preparation: Preparation::default() };
    wish.modules();
    wish.huge_pages();
    wish.functions();
    if let Some(group) = group {
        wish.grants(group);
    }
    if persist {
        wish.files(group);
    } else if group.is_some() && wish.passes_functions() {
        let note = "how much memory its members may lock is set by --persist only, and holds from their next login on";
        wish.preparation.notes.push(note.to_owned());
    }
    wish.preparation
}

impl<M: Machine> Wish<'_, M> {
    fn want(&mut self, step: Step, is_so: bool) {
        self.wanted.push(step.clone());
        if !is_so {
            self.preparation.steps.push(step);
        }
    }

    fn passes_functions(&self) -> bool {
        self.needs.is_none_or(|needs| !needs.pci.is_empty())
    }

    fn modules(&mut self) {
        let (facts, needs) = (self.facts, self.needs);
        let tdx = needs.map_or(facts.cpu.may_have_tdx() && !facts.cpu.is_virtual, |needs| needs.tee == Tee::Tdx);
        let kvm = [("svm", "kvm_amd", false), ("vmx", "kvm_intel", tdx)];
        if let Some((_, module, tdx)) = kvm.into_iter().find(|(flag, ..)| facts.cpu.shows(flag)) {
            let needed = needs.is_some_and(|needs| needs.kvm);
            let parameters = if tdx { vec!["tdx=1".to_owned()] } else { Vec::new() };
            self.module(module, parameters, facts.supports(Tee::None).is_ok(), needed);
        }
        if self.passes_functions() {
            let vfio = !self.machine.names("sys/bus/pci/drivers/vfio-pci").is_empty()
                || facts.devices.iter().any(|device| device.driver.as_deref() == Some(change::VFIO));
            self.module("vfio-pci", Vec::new(), vfio, needs.is_some());
            let needed = needs.is_some_and(|needs| needs.tee != Tee::None);
            self.module("iommufd", Vec::new(), facts.answers.opens("/dev/iommu").is_ok(), needed);
        }
        let vsock = needs.map_or((true, false), |needs| (needs.vsock, true));
        let bridged = needs.map_or((true, false), |needs| (needs.bridged, true));
        for (module, device, (wanted, needed)) in [
            ("vhost_vsock", "/dev/vhost-vsock", vsock),
            // Without it QEMU moves the packets itself.
            ("vhost_net", "/dev/vhost-net", (bridged.0, false)),
            ("tun", "/dev/net/tun", bridged),
        ] {
            if wanted {
                self.module(module, Vec::new(), facts.answers.opens(device).is_ok(), needed);
            }
        }
    }

    fn module(&mut self, name: &str, parameters: Vec<String>, works: bool, needed: bool) {
        let found = if works { Module::Present } else { modules::find(self.machine, &self.facts.kernel_release, name) };
        let (adds, is_so) = match found {
            Module::Present => (Vec::new(), true),
            Module::Loadable(mut adds) => {
                adds.retain(|module| !self.will_be_loaded(module));
                let is_so = adds.is_empty();
                (adds, is_so)
            }
            Module::Absent => {
                let found = format!("kernel {} has no module {name}", self.facts.kernel_release);
                if needed {
                    self.preparation.refusals.push(Line::missing("module", true, found));
                } else {
                    self.preparation.notes.push(found);
                }
                return;
            }
        };
        self.want(Step::LoadModule { name: modules::name_in_sysfs(name), parameters, adds }, is_so);
    }

    fn will_be_loaded(&self, module: &str) -> bool {
        let adds =
            |step: &Step| matches!(step, Step::LoadModule { adds, .. } if adds.iter().any(|added| added == module));
        self.wanted.iter().any(adds)
    }

    fn huge_pages(&mut self) {
        let Some(needs) = self.needs else { return };
        let Some(size_mib) = needs.huge_page_mib.filter(|size| *size > 0) else { return };
        if needs.numa_nodes.is_empty() {
            self.huge_pages_of(needs, size_mib, None);
        }
        needs.numa_nodes.iter().for_each(|node| self.huge_pages_of(needs, size_mib, Some(*node)));
    }

    fn huge_pages_of(&mut self, needs: &Needs, size_mib: u64, node: Option<u32>) {
        let memory = &self.facts.memory;
        let pool = Pool { node, size_kib: size_mib << 10 };
        let nodes = memory.nodes.iter().filter(|(number, _)| node.is_none_or(|node| node == **number));
        let (all, free, room_mib) = nodes.fold((0, 0, 0), |(all, free, room), (_, node)| {
            let (there, unused) = node.huge_pages.get(&pool.size_kib).copied().unwrap_or_default();
            (all + there, free + unused, room + node.available_mib)
        });
        let missing = needs.memory_of_a_node().div_ceil(size_mib).saturating_sub(free);
        let refuse = |found: String| Line::missing("huge pages", true, found);
        if self.machine.text(&pool.file()).is_err() {
            let found = format!("there is no /{}", pool.file());
            self.preparation.refusals.push(refuse(found).because("the processor or the node lacks such pages"));
        } else if missing * size_mib > room_mib {
            let found = format!("{missing} huge pages of {size_mib} MiB are missing, and {room_mib} MiB are available");
            self.preparation.refusals.push(refuse(found).remedy("stop other VMs, or lower `memory`"));
        } else {
            self.want(Step::HugePages { pool, before: all, after: all + missing }, missing == 0);
        }
    }

    fn functions(&mut self) {
        let Some(needs) = self.needs else { return };
        for address in &needs.pci {
            if let Some(line) = obstacle(self.facts, &needs.pci, address) {
                self.preparation.refusals.push(line);
                continue;
            }
            let (Some(device), Ok(parsed)) = (self.facts.device(address), address.parse::<PciAddress>()) else {
                continue;
            };
            let is_so = device.driver.as_deref() == Some(change::VFIO);
            if !is_so && !device.uses.is_empty() {
                let driver = device.driver.as_deref().unwrap_or("nobody");
                let found = format!("{address} [{}] driven by {driver}", device.id);
                let line =
                    Line::missing("pci", true, found).because(format!("the host uses it: {}", device.uses.join("; ")));
                self.preparation.refusals.push(line.remedy("name another device, or give this one up first"));
                continue;
            }
            if let Some(line) = unfit(&needs.drives, device) {
                self.preparation.refusals.push(line);
                continue;
            }
            let step = Step::Bind {
                address: parsed,
                id: device.id.clone(),
                driver: device.driver.clone(),
                disks: device.disks.clone(),
            };
            self.want(step, is_so);
        }
    }

    /// The devices that a launch opens, and that are there or will be.
    fn grants(&mut self, group: &Group) {
        let needs = self.needs;
        let snp = needs.map_or(self.facts.cpu.has_snp, |needs| needs.tee == Tee::Snp);
        let mut devices = vec![Device::Kvm];
        devices.extend(snp.then_some(Device::Sev));
        if self.passes_functions() {
            devices.extend([Device::Iommu, Device::Vfio]);
        }
        if needs.is_none_or(|needs| needs.vsock) {
            devices.push(Device::VhostVsock);
        }
        if needs.is_none_or(|needs| needs.bridged) {
            devices.extend([Device::VhostNet, Device::Tun]);
        }
        let will_be = |device: &Device| device.module().is_some_and(|module| self.will_be_loaded(module));
        devices.retain(|device| device.node(self.machine).is_some() || will_be(device));
        let bound = self.wanted.iter().filter_map(|step| match step {
            Step::Bind { address, .. } => Some(Device::Function(*address)),
            _ => None,
        });
        devices.extend(bound.collect::<Vec<_>>());
        for device in devices {
            let is_so =
                device.node(self.machine).and_then(|node| self.machine.rights(&node).ok()).is_some_and(|rights| {
                    rights.mode & 0o006 == 0o006 || rights.group == group.number && rights.mode & 0o060 == 0o060
                });
            self.want(Step::Grant { device, group: group.clone() }, is_so);
        }
    }

    fn files(&mut self, group: Option<&Group>) {
        // Memory is locked for devices only.
        let locking = group.filter(|_| self.passes_functions());
        for (file, lines) in files::lines(&self.wanted, locking) {
            let before = self.machine.read(file.path()).ok();
            if before.as_deref().is_some_and(|before| !PersistentFile::is_ours(before)) {
                let line = Line::missing("files", true, format!("/{} is there already", file.path()));
                let line = line.because("somebody else has written it").remedy("move it away");
                self.preparation.refusals.push(line);
            } else if let Some(content) = PersistentFile::with(before.as_deref(), &lines) {
                self.preparation.steps.push(Step::Write { file, content });
            }
        }
    }
}
