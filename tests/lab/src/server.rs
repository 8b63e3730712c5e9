//! The server itself: QEMU under TCG, started, told what to do, and cut off from power.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::boot::COMMAND_LINE;
use crate::devices::{self, Device};
use crate::model::Model;
use crate::parts::{Kernel, Parts};
use crate::port::{Port, Run};

/// A quiet machine boots it in 20 s, one with a load of 14 for each processor in 60 s.
const PATIENCE: Duration = Duration::from_secs(600);
const MEMORY_MIB: usize = 3072;
/// NUMA nodes, each with as many of the two processors and as much of the memory.
const NODES: usize = 2;

/// A running server. It ends with this value.
#[derive(Debug)]
pub struct Server<'a> {
    parts: &'a Parts,
    kernel: Kernel,
    devices: Vec<Device>,
    running: Option<Running>,
    /// They outlive a power cut, as what a GPU keeps of its mode does.
    models: Vec<Model>,
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    qemu: Child,
    port: Port,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl<'a> Server<'a> {
    /// Boots a server that has `devices`; `Err` says why it does not boot.
    pub fn boot(parts: &'a Parts, kernel: Kernel, devices: &[Device]) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("state")).unwrap().set_len(64 << 20).unwrap();
        let models = devices::start(parts, directory.path(), devices);
        let mut server = Self { parts, kernel, devices: devices.to_vec(), running: None, models, directory };
        server.power_on()?;
        Ok(server)
    }

    /// Runs a script for `bash`, for at most `limit_s` seconds.
    #[track_caller]
    pub fn run_for(&mut self, limit_s: u64, script: &str) -> Run {
        let port = &mut self.running.as_mut().unwrap_or_else(|| panic!("the server has no power")).port;
        let answer = port.run(script, Duration::from_secs(limit_s));
        answer.unwrap_or_else(|error| panic!("{error}: {script}\n{}", self.console()))
    }

    /// Runs a script that is done soon.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> Run {
        self.run_for(300, script)
    }

    /// Cuts the power: nothing that has not reached a disk stays.
    pub fn cut_power(&mut self) {
        self.running = None;
    }

    /// Boots again, with the same disks.
    pub fn power_on(&mut self) -> Result<(), String> {
        let socket = self.path("port.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
        let mut command = self.qemu();
        devices::add(&mut command, self.directory.path(), &self.devices, &self.models);
        let qemu = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut running = Unconnected(Some(qemu));
        let stream =
            accept(&listener, &mut running).ok_or_else(|| format!("QEMU does not start: {}", self.read("qemu.log")))?;
        let mut port = Port::new(stream);
        port.wait_until_ready(PATIENCE).map_err(|error| format!("{error}: {}", self.console()))?;
        self.running = running.0.take().map(|qemu| Running { qemu, port });
        // The root is in memory: the cache of the server's user, where the program looks for the locked QEMU, is new.
        let tree = format!("~root/.cache/bullion/trees/{}", self.parts.vmm());
        let mounted = self.run(&format!("mkdir -p {tree} && mount -o ro /dev/disk/by-id/virtio-vmm {tree}"));
        if mounted.code == 0 { Ok(()) } else { Err(format!("there is no locked QEMU: {mounted:?}")) }
    }

    /// What the modelled device number `index` told of its resets, since the server was made.
    pub fn model_log(&self, index: usize) -> String {
        self.models.get(index).map(Model::log).unwrap_or_default()
    }

    /// Does something to the modelled device number `index`, in the words of `fakegpu`'s control socket; gives its state.
    #[track_caller]
    pub fn model(&self, index: usize, command: &str) -> serde_json::Value {
        let model = self.models.get(index).unwrap_or_else(|| panic!("there is no model {index}"));
        model.tell(command)
    }

    /// The bytes of the NVMe drive that is device number `index`.
    pub fn drive(&self, index: usize) -> Vec<u8> {
        std::fs::read(self.path(&format!("nvme{index}"))).unwrap()
    }

    /// The last of what the server's kernel and systemd said.
    pub fn console(&self) -> String {
        let text = self.read("console");
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    fn qemu(&self) -> Command {
        let tree = &self.parts.qemu;
        let library = tree.join("usr/lib/x86_64-linux-gnu");
        let mut qemu = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
        qemu.arg("--library-path").arg(&library).arg(tree.join("usr/bin/qemu-system-x86_64"));
        qemu.env("QEMU_MODULE_DIR", library.join("qemu")).arg("-L").arg(tree.join("usr/share/qemu"));
        qemu.arg("-L").arg(tree.join("usr/share/seabios"));
        qemu.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
        // A TD wants 48 bits of guest-physical addresses, and eight GPUs room for their BARs.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "EPYC-v4,phys-bits=48", "-smp", "2,sockets=2"]);
        qemu.args(["-m", &format!("{MEMORY_MIB}M"), "-machine", "q35,kernel-irqchip=split"]);
        for node in 0..NODES {
            let part = MEMORY_MIB / NODES;
            qemu.args(["-object", &format!("memory-backend-memfd,id=ram{node},size={part}M,share=on")]);
            qemu.args(["-numa", &format!("node,nodeid={node},memdev=ram{node},cpus={node}")]);
        }
        // A guest's IOMMU mappings reach the emulated devices by caching mode only.
        qemu.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        qemu.arg("-kernel").arg(self.parts.path(self.kernel.name()));
        qemu.arg("-initrd").arg(self.parts.path(self.kernel.initrd()));
        qemu.args(["-append", COMMAND_LINE]).arg("-serial").arg(format!("file:{}", self.path("console").display()));
        let disks = [
            ("root", self.parts.path("host/rootfs"), ",readonly=on"),
            ("payload", self.parts.path("payload.erofs"), ",readonly=on"),
            ("state", self.path("state"), ""),
            ("vmm", self.parts.path("vmm.erofs"), ",readonly=on"),
        ];
        for (name, file, options) in disks {
            qemu.args(["-drive", &format!("if=none,id={name},format=raw,file={}{options}", file.display())]);
            qemu.args(["-device", &format!("virtio-blk-pci,drive={name},serial={name}")]);
        }
        qemu.args(["-device", "virtio-serial-pci"]);
        qemu.args(["-chardev", &format!("socket,id=lab,path={}", self.path("port.sock").display())]);
        qemu.args(["-device", "virtserialport,chardev=lab,name=lab"]);
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(self.path("qemu.log")).unwrap());
        qemu
    }
}

/// QEMU before it has connected: killed when it never does.
struct Unconnected(Option<Child>);

impl Drop for Unconnected {
    fn drop(&mut self) {
        if let Some(qemu) = &mut self.0 {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

/// QEMU's end of the port; `None` where QEMU ends before.
fn accept(listener: &UnixListener, qemu: &mut Unconnected) -> Option<UnixStream> {
    listener.set_nonblocking(true).ok()?;
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).ok()?;
            return Some(stream);
        }
        if qemu.0.as_mut()?.try_wait().ok()?.is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
