//! The state machine of one SNP guest: `sev_mem_enc_ioctl` and the commands it knows, in the order in which the kernel checks.

use nix::errno::Errno;
use sha2::{Digest as _, Sha384};

use super::digest::{LaunchDigest, PageType};
use super::facts::{CpuidPage, Facts, IdBlockFacts, VcpuFacts, parse_cpuid_page};
use super::id_block::{ID_AUTH_SIZE, ID_BLOCK_SIZE, IdBlock};
use super::{platform, status, vmsa};
use crate::abi::{SevCmd, SevInit, SnpLaunchFinish, SnpLaunchStart, SnpLaunchUpdate};
use crate::config::config;
use crate::guest_memory::{GuestMemory, PAGE_SIZE, Unpopulatable};
use crate::pages::{PageRun, keep_page, read_run};
use crate::refusal::Refusal;
use crate::user_memory;
use crate::vcpu::{Registers, Vcpu};

const INIT2: u32 = 22;
const LAUNCH_START: u32 = 100;
const LAUNCH_UPDATE: u32 = 101;
const LAUNCH_FINISH: u32 = 102;
const ENABLE_REQ_CERTS: u32 = 103;

/// `INITIAL_VMSA_GPA`: where KVM says every VMSA is.
const VMSA_GPA: u64 = 0xffff_ffff_f000;
const GHCB_VERSION_MAX: u16 = 2;
const SNP_ACTIVE: u64 = 1;
/// POLICY bit 16: SMT is allowed.
const POLICY_SMT: u64 = 1 << 16;
/// POLICY bit 17: must be one.
const POLICY_MUST_BE_ONE: u64 = 1 << 17;

/// How far a launch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Initialised,
    Started,
    Finished,
}

/// One SNP guest.
#[derive(Debug)]
pub(crate) struct Guest {
    state: State,
    policy: u64,
    digest: LaunchDigest,
    facts: Facts,
}

/// What of the VM a command may look at.
pub(crate) struct Environment<'a> {
    pub(crate) memory: &'a mut GuestMemory,
    pub(crate) vcpus: &'a [Vcpu],
    pub(crate) pages: &'a mut Vec<PageRun>,
    /// Whether `sev_fd` of the command is a simulated `/dev/sev`.
    pub(crate) is_sev_device: &'a dyn Fn(i32) -> bool,
}

impl Guest {
    /// A guest of a VM that has just been created.
    pub(crate) fn new() -> Self {
        Self { state: State::Created, policy: 0, digest: LaunchDigest::new(), facts: Facts::default() }
    }

    /// What the report says.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the launch is complete.
    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// KVM_MEMORY_ENCRYPT_OP with the `struct kvm_sev_cmd` at `argument`.
    pub(crate) fn command(&mut self, argument: u64, environment: &mut Environment<'_>) -> Result<(), Refusal> {
        let mut command: SevCmd = user_memory::read(argument)?;
        if self.state != State::Created && command.id < LAUNCH_START {
            return Err(Refusal::new(Errno::EPERM, format!("command {} is not for SNP guests", command.id)));
        }
        let outcome = match command.id {
            INIT2 => self.init2(&command, environment),
            LAUNCH_START => self.launch_start(&command, environment),
            LAUNCH_UPDATE => self.launch_update(&command, environment),
            LAUNCH_FINISH => self.launch_finish(&command, environment),
            ENABLE_REQ_CERTS if self.state != State::Created && environment.vcpus.is_empty() => Ok(()),
            other => return Err(Refusal::new(Errno::EINVAL, format!("command {other} is unknown or out of order"))),
        };
        command.error = match &outcome {
            Err(refusal) => refusal.firmware.and_then(|status| u32::try_from(status).ok()).unwrap_or(0),
            Ok(()) => 0,
        };
        user_memory::write(argument, &command)?;
        outcome
    }

    /// `__sev_guest_init`.
    fn init2(&mut self, command: &SevCmd, environment: &Environment<'_>) -> Result<(), Refusal> {
        let init: SevInit = user_memory::read(command.data)?;
        let refuse = |reason: String| Err(Refusal::new(Errno::EINVAL, format!("INIT2: {reason}")));
        if !environment.vcpus.is_empty() {
            return refuse("vCPUs exist already".into());
        }
        if init.flags != 0 {
            return refuse(format!("flags {:#x} are unknown", init.flags));
        }
        if init.vmsa_features & !platform::VMSA_FEATURES != 0 {
            return refuse(format!("VMSA features {:#x} are not supported", init.vmsa_features));
        }
        if init.ghcb_version > GHCB_VERSION_MAX {
            return refuse(format!("GHCB version {} is not supported", init.ghcb_version));
        }
        self.facts.vmsa_features = init.vmsa_features;
        self.facts.sev_features = init.vmsa_features | SNP_ACTIVE;
        self.facts.ghcb_version = init.ghcb_version;
        self.state = State::Initialised;
        Ok(())
    }

    /// `snp_launch_start`, then what the secure processor checks.
    fn launch_start(&mut self, command: &SevCmd, environment: &Environment<'_>) -> Result<(), Refusal> {
        if self.state == State::Created {
            return Err(Refusal::new(Errno::ENOTTY, "LAUNCH_START: INIT2 has not been done"));
        }
        let start: SnpLaunchStart = user_memory::read(command.data)?;
        let refuse = |reason: String| Err(Refusal::new(Errno::EINVAL, format!("LAUNCH_START: {reason}")));
        if self.state != State::Initialised {
            return refuse("the launch has started already".into());
        }
        if start.flags != 0 {
            return refuse(format!("flags {:#x} are unknown", start.flags));
        }
        if start.policy & !platform::POLICY_BITS != 0 || start.policy & POLICY_MUST_BE_ONE == 0 {
            return refuse(format!("policy {:#x} is not valid", start.policy));
        }
        if !(environment.is_sev_device)(command.sev_fd) {
            return Err(Refusal::new(Errno::ENOTTY, "LAUNCH_START: sev_fd is not /dev/sev"));
        }
        self.check_policy(start.policy)?;
        self.policy = start.policy;
        self.facts.policy = Some(start.policy);
        self.facts.gosvw = start.gosvw;
        self.state = State::Started;
        Ok(())
    }

    fn check_policy(&self, policy: u64) -> Result<(), Refusal> {
        let fail = |reason: String| Err(Refusal::by_firmware(Errno::EIO, status::POLICY_FAILURE, reason));
        let [minor, major, ..] = policy.to_le_bytes();
        if (major, minor) > platform::API {
            return fail(format!("policy {policy:#x} asks for firmware ABI {major}.{minor}"));
        }
        if policy & POLICY_SMT == 0 && !config().smt_disabled {
            return fail(format!("policy {policy:#x} forbids SMT, which the host has enabled"));
        }
        Ok(())
    }

    /// `snp_launch_update`.
    fn launch_update(&mut self, command: &SevCmd, environment: &mut Environment<'_>) -> Result<(), Refusal> {
        if !matches!(self.state, State::Started | State::Finished) {
            return Err(Refusal::new(Errno::EINVAL, "LAUNCH_UPDATE: LAUNCH_START has not been done"));
        }
        let mut update: SnpLaunchUpdate = user_memory::read(command.data)?;
        let page_type = PageType(update.page_type);
        check_update(&update)?;
        let count =
            environment.memory.populatable(update.gfn_start, update.len / PAGE_SIZE).map_err(|why| match why {
                Unpopulatable::NoSlot(_) => Refusal::from(why),
                // Whatever kvm_gmem_populate says becomes EIO.
                _ => Refusal { errno: Errno::EIO, ..Refusal::from(why) },
            })?;
        if self.state == State::Finished {
            return Err(Refusal::by_firmware(
                Errno::EIO,
                status::INVALID_GUEST_STATE,
                "LAUNCH_UPDATE after LAUNCH_FINISH",
            ));
        }
        let run = self.add_pages(&update, page_type, count)?;
        environment.memory.set_populated(update.gfn_start, count);
        environment.pages.push(run);
        update.gfn_start += count;
        update.len -= count * PAGE_SIZE;
        if page_type != PageType::ZERO {
            update.uaddr += count * PAGE_SIZE;
        }
        Ok(user_memory::write(command.data, &update)?)
    }

    fn add_pages(&mut self, update: &SnpLaunchUpdate, page_type: PageType, count: u64) -> Result<PageRun, Refusal> {
        let gpa = update.gfn_start * PAGE_SIZE;
        let run = |sha384| PageRun {
            gpa,
            len: count * PAGE_SIZE,
            kind: page_type.name(),
            measured: page_type.measures_content(),
            sha384,
        };
        if page_type == PageType::ZERO {
            (0..count).for_each(|index| self.digest.extend(page_type, gpa + index * PAGE_SIZE, &[]));
            return Ok(run(None));
        }
        let mut at = gpa;
        let mut digest = self.digest.clone();
        let mut cpuid_pages = Vec::new();
        let name = format!("{gpa:#x}-{}.bin", page_type.name());
        let content = read_run(update.uaddr, count, &name, |page| {
            if page_type == PageType::CPUID {
                let functions = parse_cpuid_page(page).ok_or_else(|| {
                    Refusal::by_firmware(Errno::EIO, status::INVALID_PARAM, "the CPUID page has more than 64 functions")
                })?;
                cpuid_pages.push(CpuidPage { gpa: at, functions });
            }
            digest.extend(page_type, at, page);
            at += PAGE_SIZE;
            Ok(())
        })
        .map_err(|refusal| Refusal { errno: Errno::EIO, ..refusal })?;
        self.digest = digest;
        self.facts.cpuid_pages.append(&mut cpuid_pages);
        Ok(run(Some(content)))
    }

    /// `snp_launch_finish`.
    fn launch_finish(&mut self, command: &SevCmd, environment: &mut Environment<'_>) -> Result<(), Refusal> {
        match self.state {
            State::Created => return Err(Refusal::new(Errno::ENOTTY, "LAUNCH_FINISH: INIT2 has not been done")),
            State::Initialised => {
                return Err(Refusal::new(Errno::EINVAL, "LAUNCH_FINISH: LAUNCH_START has not been done"));
            }
            State::Finished => {
                let reason = "LAUNCH_FINISH: the launch is finished already";
                return Err(Refusal::by_firmware(Errno::EIO, status::INVALID_GUEST_STATE, reason));
            }
            State::Started => {}
        }
        let finish: SnpLaunchFinish = user_memory::read(command.data)?;
        if finish.flags != 0 {
            return Err(Refusal::new(Errno::EINVAL, format!("LAUNCH_FINISH: flags {:#x} are unknown", finish.flags)));
        }
        self.measure_vcpus(environment)?;
        self.facts.host_data = finish.host_data;
        self.facts.vcek_disabled = finish.vcek_disabled != 0;
        if finish.id_block_en != 0 {
            self.check_id_block(&finish)?;
        }
        self.facts.launch_digest = Some(self.digest.value());
        self.state = State::Finished;
        Ok(())
    }

    /// `snp_launch_update_vmsa`: every vCPU that exists, in the order of creation.
    fn measure_vcpus(&mut self, environment: &mut Environment<'_>) -> Result<(), Refusal> {
        for vcpu in environment.vcpus {
            let registers = Registers::read(vcpu.fd)
                .map_err(|errno| Refusal::new(errno, format!("cannot read the registers of vCPU {}", vcpu.id)))?;
            let page = vmsa::page(&registers, self.facts.sev_features)?;
            self.digest.extend(PageType::VMSA, VMSA_GPA, &page);
            keep_page(&format!("vcpu{}-vmsa.bin", vcpu.id), &page)?;
            let sha384 = Sha384::digest(page).into();
            environment.pages.push(PageRun {
                gpa: VMSA_GPA,
                len: PAGE_SIZE,
                kind: PageType::VMSA.name(),
                measured: true,
                sha384: Some(sha384),
            });
            self.facts.vcpu_state.push(VcpuFacts {
                id: vcpu.id,
                sha384,
                cs_base: registers.special.cs.base,
                rip: registers.general.rip,
                rdx: registers.general.rdx,
            });
        }
        Ok(())
    }

    fn check_id_block(&mut self, finish: &SnpLaunchFinish) -> Result<(), Refusal> {
        let mut block = [0; ID_BLOCK_SIZE];
        let mut auth = [0; ID_AUTH_SIZE];
        user_memory::read_bytes(finish.id_block_uaddr, &mut block)?;
        user_memory::read_bytes(finish.id_auth_uaddr, &mut auth)?;
        let block = IdBlock::new(block, auth, finish.auth_key_en != 0);
        self.facts.id_block = Some(IdBlockFacts {
            launch_digest: block.launch_digest(),
            family_id: block.family_id(),
            image_id: block.image_id(),
            guest_svn: block.guest_svn(),
            policy: block.policy(),
            id_key_digest: block.id_key().digest(),
            author_key_digest: block.author_key().map(|key| key.digest()),
        });
        block.check(&self.digest.value(), self.policy)
    }
}

fn check_update(update: &SnpLaunchUpdate) -> Result<(), Refusal> {
    let page_type = PageType(update.page_type);
    let known = [PageType::NORMAL, PageType::ZERO, PageType::UNMEASURED, PageType::SECRETS, PageType::CPUID];
    let refuse = |reason: String| Err(Refusal::new(Errno::EINVAL, format!("LAUNCH_UPDATE: {reason}")));
    if update.len == 0 || !update.len.is_multiple_of(PAGE_SIZE) {
        return refuse(format!("length {:#x} is not a whole number of pages", update.len));
    }
    if update.flags != 0 || !known.contains(&page_type) {
        return refuse(format!("flags {:#x} or page type {} are unknown", update.flags, update.page_type));
    }
    if page_type != PageType::ZERO && !update.uaddr.is_multiple_of(PAGE_SIZE) {
        return refuse(format!("the source {:#x} is not aligned to a page", update.uaddr));
    }
    Ok(())
}
