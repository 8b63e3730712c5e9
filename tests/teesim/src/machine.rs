//! One simulated VM: its memory, its vCPUs and its launch, and what happens when the launch ends.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::config::config;
use crate::firmware::{Firmware, Output};
use crate::guest_memory::GuestMemory;
use crate::pages::PageRun;
use crate::quote::{Quote, Step};
use crate::real;
use crate::refusal::Refusal;
use crate::report::{Report, Tee};
use crate::vcpu::Vcpu;
use crate::{snp, tdx};

/// The launch of one TEE.
#[derive(Debug)]
pub(crate) enum Launch {
    /// SEV-SNP.
    Snp(snp::Guest),
    /// TDX.
    Tdx(tdx::Guest),
}

/// One simulated VM.
#[derive(Debug)]
pub(crate) struct Machine {
    launch: Launch,
    /// Which launch of this process it is, from 1.
    number: u32,
    pub(crate) memory: GuestMemory,
    vcpus: Vec<Vcpu>,
    pages: Vec<PageRun>,
    /// What the first vCPU does once launched.
    firmware: Option<Firmware>,
    quote: Option<Quote>,
    is_playing: bool,
}

/// What KVM_RUN on a launched vCPU comes to.
#[derive(Debug)]
pub(crate) enum Run {
    /// It leaves guest mode with this access.
    Exit(Output),
    /// It asks for a quote, with the address and size of a buffer.
    GetQuote(u64, u64),
    /// It leaves guest mode for nothing, a moment later.
    Again,
    /// It stays in guest mode.
    Stay,
}

impl Machine {
    /// A VM that has just been created.
    pub(crate) fn new(launch: Launch, number: u32) -> Self {
        Self {
            launch,
            number,
            memory: GuestMemory::default(),
            vcpus: Vec::new(),
            pages: Vec::new(),
            firmware: None,
            quote: None,
            is_playing: false,
        }
    }

    /// Whether its vCPUs may run.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.launch {
            Launch::Snp(guest) => guest.is_finished(),
            Launch::Tdx(guest) => guest.is_finished(),
        }
    }

    /// Whether it is a TD.
    pub(crate) fn is_tdx(&self) -> bool {
        matches!(self.launch, Launch::Tdx(_))
    }

    /// The vCPU of a descriptor.
    pub(crate) fn vcpu(&self, fd: RawFd) -> Option<&Vcpu> {
        self.vcpus.iter().find(|vcpu| vcpu.fd == fd)
    }

    /// KVM_CREATE_VCPU; `create` makes the real one.
    pub(crate) fn create_vcpu(
        &mut self,
        id: u64,
        create: impl FnOnce() -> Result<RawFd, Errno>,
    ) -> Result<RawFd, Errno> {
        if let Launch::Tdx(guest) = &self.launch
            && let Err(refusal) = guest.may_create_vcpu()
        {
            return self.refuse(&refusal);
        }
        let fd = create()?;
        self.vcpus.push(Vcpu::new(fd, id));
        Ok(fd)
    }

    /// KVM_MEMORY_ENCRYPT_OP on the VM. A null argument asks whether there is memory encryption at all.
    pub(crate) fn vm_command(&mut self, argument: u64, is_sev_device: &dyn Fn(i32) -> bool) -> Result<i32, Errno> {
        let was_finished = self.is_finished();
        let (memory, vcpus, pages) = (&mut self.memory, &self.vcpus[..], &mut self.pages);
        let outcome = match &mut self.launch {
            Launch::Snp(_) if argument == 0 => return Ok(0),
            Launch::Snp(guest) => {
                guest.command(argument, &mut snp::Environment { memory, vcpus, pages, is_sev_device })
            }
            Launch::Tdx(guest) => guest.vm_command(argument, &mut tdx::Environment { memory, vcpus, pages }),
        };
        match outcome {
            Ok(()) if !was_finished && self.is_finished() => self.conclude(),
            Ok(()) => Ok(0),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// KVM_MEMORY_ENCRYPT_OP on a vCPU, which only TDX has.
    pub(crate) fn vcpu_command(&mut self, fd: RawFd, argument: u64) -> Result<i32, Errno> {
        let vcpu = self.vcpu(fd).cloned().ok_or(Errno::EBADF)?;
        let Launch::Tdx(guest) = &mut self.launch else { return Err(Errno::ENOTTY) };
        let mut environment = tdx::Environment { memory: &mut self.memory, vcpus: &self.vcpus, pages: &mut self.pages };
        match guest.vcpu_command(&vcpu, argument, &mut environment) {
            Ok(()) => Ok(0),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// KVM_RUN: the first vCPU plays firmware and guest where that is asked for; no other guest code runs.
    pub(crate) fn run(&mut self, fd: RawFd) -> Result<Run, Errno> {
        if !self.is_playing || self.vcpus.first().is_none_or(|vcpu| vcpu.fd != fd) {
            return Ok(Run::Stay);
        }
        match self.play() {
            Ok(Some(run)) => return Ok(run),
            Ok(None) => self.end()?,
            Err(reason) => {
                self.write_report(Some(&Refusal::new(Errno::EIO, reason)))?;
                return Err(Errno::EIO);
            }
        };
        self.is_playing = false;
        Ok(Run::Stay)
    }

    /// What the first vCPU does next; none when it has done all that was asked for.
    fn play(&mut self) -> Result<Option<Run>, String> {
        if let Some(firmware) = &mut self.firmware {
            let save = config().fw_cfg.as_ref().and_then(Option::as_deref);
            if let Some(output) = firmware.next(&self.memory, save)? {
                return Ok(Some(Run::Exit(output)));
            }
        }
        let Some(quote) = &mut self.quote else { return Ok(None) };
        let page = self.vcpus.first().and_then(Vcpu::run_page).ok_or("GetQuote: the vCPU has no run page")?;
        Ok(match quote.next(&self.memory, page.quote_returned())? {
            Step::Call(gpa, size) => Some(Run::GetQuote(gpa, size)),
            Step::Wait => Some(Run::Again),
            Step::Done => None,
        })
    }

    /// The launch is complete. Firmware may have something to read yet, and the guest to ask.
    fn conclude(&mut self) -> Result<i32, Errno> {
        self.quote = (config().quote && self.is_tdx()).then(Quote::default);
        if config().fw_cfg.is_some() {
            let Some(placement) = &config().placement else {
                return self.refuse(&Refusal::new(Errno::EINVAL, "TEESIM_PCI is not a list of writes"));
            };
            self.firmware = Some(Firmware::new(placement));
        }
        self.is_playing = self.firmware.is_some() || self.quote.is_some();
        if self.is_playing { Ok(0) } else { self.end() }
    }

    /// The report is written, and QEMU ends here unless it is to go on.
    fn end(&self) -> Result<i32, Errno> {
        self.write_report(None)?;
        if config().keep_running {
            return Ok(0);
        }
        real::exit(0)
    }

    fn refuse<T>(&self, refusal: &Refusal) -> Result<T, Errno> {
        if !refusal.is_retried() {
            self.write_report(Some(refusal))?;
        }
        Err(refusal.errno)
    }

    fn write_report(&self, refusal: Option<&Refusal>) -> Result<(), Errno> {
        let Some(path) = &config().report else { return Ok(()) };
        let tee = match &self.launch {
            Launch::Snp(guest) => Tee::Snp(guest.facts()),
            Launch::Tdx(guest) => Tee::Tdx(guest.facts()),
        };
        let mut report = Report::new(self.number, self.vcpus.len(), &self.pages, tee);
        report.fw_cfg = self.firmware.as_ref().map(Firmware::files);
        report.quote = self.quote.as_ref().and_then(Quote::answer);
        report.failed = refusal.map(|refusal| refusal.reason.as_str());
        report.firmware_status = refusal.and_then(|refusal| refusal.firmware);
        report.write(path).map_err(|error| {
            #[allow(clippy::print_stderr, reason = "QEMU's stderr is the only place left to say it")]
            {
                eprintln!("teesim: cannot write the report {}: {error}", path.display());
            }
            Errno::EIO
        })
    }
}
