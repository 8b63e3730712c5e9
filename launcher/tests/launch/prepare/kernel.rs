//! A kernel in memory, with the attributes of sysfs that preparing a host reads and writes, as
//! Documentation/ABI/testing/sysfs-bus-pci and the drivers' sources have them. It can stop dead before any change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use launcher::host::prepare::{Machine, Rights};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// The driver whose table has this device.
    pub(crate) natural: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) driver_override: Option<String>,
    /// A process has it open by VFIO.
    pub(crate) held: bool,
}

/// What survives the process, and what a restore has to bring back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) functions: BTreeMap<String, Function>,
    pub(crate) modules: BTreeSet<String>,
    /// The pool's file, how many pages there are, and how many the memory has room for.
    pub(crate) pools: BTreeMap<String, (u64, u64)>,
    pub(crate) rights: BTreeMap<String, Rights>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) claimed: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) state: State,
    pub(crate) journal: Option<String>,
    /// How many more changes there are before the power fails.
    pub(crate) changes_left: Option<usize>,
}

/// What the power cut unwinds with.
pub(crate) struct PowerCut;

/// What each module needs, in the order of loading.
pub(crate) const STACK: [&str; 4] = ["vfio", "vfio_iommu_type1", "vfio_pci_core", "vfio_pci"];

impl Kernel {
    fn change(&mut self) {
        match &mut self.changes_left {
            Some(0) => std::panic::panic_any(PowerCut),
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn function(&self, path: &str) -> Option<(&Function, String)> {
        let (address, file) = path.strip_prefix("sys/bus/pci/devices/")?.split_once('/')?;
        Some((self.state.functions.get(address)?, file.to_owned()))
    }

    /// The driver that a probe finds: only what it was told to, else by the tables; and only where the driver is loaded.
    fn probe(&mut self, address: &str) -> io::Result<()> {
        let has_vfio = self.state.modules.contains("vfio_pci");
        let function = self.state.functions.get_mut(address).ok_or(io::ErrorKind::NotFound)?;
        if function.driver.is_none() {
            let driver = function.driver_override.clone().or_else(|| function.natural.clone());
            function.driver = driver.filter(|driver| driver != "vfio-pci" || has_vfio);
            if function.driver.as_deref() == Some("vfio-pci") {
                self.state.rights.insert(node(address), Rights { group: 0, mode: 0o600 });
            }
        }
        Ok(())
    }

    fn write_now(&mut self, path: &str, text: &str) -> io::Result<()> {
        if path == "sys/bus/pci/drivers_probe" {
            return self.probe(text);
        }
        if let Some(pool) = self.state.pools.get_mut(path) {
            pool.0 = text.parse::<u64>().map_err(io::Error::other)?.min(pool.1);
            return Ok(());
        }
        if let Some(driver) = path.strip_prefix("sys/bus/pci/drivers/").and_then(|path| path.strip_suffix("/bind")) {
            let function = self.state.functions.get_mut(text).ok_or(io::ErrorKind::NotFound)?;
            // Binding by hand goes by the driver's table, too.
            let matches = function.driver_override.as_deref().or(function.natural.as_deref()) == Some(driver);
            if function.driver.is_some() || !matches {
                return Err(io::ErrorKind::NotFound.into());
            }
            function.driver = Some(driver.to_owned());
            return Ok(());
        }
        let (_, file) = self.function(path).ok_or(io::ErrorKind::NotFound)?;
        let address = path.split('/').nth(4).unwrap().to_owned();
        let function = self.state.functions.get_mut(&address).unwrap();
        match file.as_str() {
            "driver_override" => {
                function.driver_override = Some(text.trim().to_owned()).filter(|text| !text.is_empty())
            }
            "driver/unbind" if function.driver.is_some() && text == address => {
                assert!(!function.held, "the kernel waits for whoever has {address} open");
                function.driver = None;
                self.state.rights.remove(&node(&address));
            }
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }
}

fn node(address: &str) -> String {
    format!("dev/vfio/devices/vfio{}", address.replace([':', '.'], ""))
}

impl Machine for Kernel {
    fn read(&self, path: &str) -> io::Result<String> {
        if let Some((function, file)) = self.function(path) {
            return match file.as_str() {
                "vendor" => Ok("0x144d\n".to_owned()),
                "driver_override" => Ok(format!("{}\n", function.driver_override.as_deref().unwrap_or("(null)"))),
                _ => Err(io::ErrorKind::NotFound.into()),
            };
        }
        if let Some((pages, _)) = self.state.pools.get(path) {
            return Ok(format!("{pages}\n"));
        }
        if let Some(module) = path.strip_prefix("sys/module/").and_then(|path| path.strip_suffix("/refcnt")) {
            let holders = self.names(&format!("sys/module/{module}/holders")).len();
            return self
                .state
                .modules
                .contains(module)
                .then(|| format!("{holders}\n"))
                .ok_or(io::ErrorKind::NotFound.into());
        }
        self.state.files.get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        self.change();
        self.write_now(path, text)
    }

    fn put(&mut self, path: &str, content: &str) -> io::Result<()> {
        self.change();
        self.state.files.insert(path.to_owned(), content.to_owned());
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.change();
        self.state.files.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn link(&self, path: &str) -> Option<String> {
        let (function, file) = self.function(path)?;
        if file == "driver" { function.driver.clone() } else { None }
    }

    fn names(&self, path: &str) -> Vec<String> {
        if let Some((function, file)) = self.function(path) {
            let address = path.split('/').nth(4).unwrap();
            let shown = file == "vfio-dev" && function.driver.as_deref() == Some("vfio-pci");
            return if shown { vec![node(address).rsplit('/').next().unwrap().to_owned()] } else { Vec::new() };
        }
        if path == "sys/module/vfio_pci/drivers" {
            return vec!["pci:vfio-pci".to_owned()];
        }
        if path == "sys/bus/pci/drivers/vfio-pci" {
            let bound = self.state.functions.iter().filter(|(_, found)| found.driver.as_deref() == Some("vfio-pci"));
            return bound.map(|(address, _)| address.clone()).chain(["bind".to_owned()]).collect();
        }
        let Some(module) = path.strip_prefix("sys/module/") else { return Vec::new() };
        if let Some(module) = module.strip_suffix("/holders") {
            // Each needs the one before it, in this stack.
            let place = STACK.iter().position(|name| *name == module);
            let next = place.and_then(|place| STACK.get(place + 1)).filter(|next| self.state.modules.contains(**next));
            return next.into_iter().map(|next| (*next).to_owned()).collect();
        }
        if self.state.modules.contains(module) { vec!["refcnt".to_owned()] } else { Vec::new() }
    }

    fn rights(&self, path: &str) -> io::Result<Rights> {
        self.state.rights.get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn set_rights(&mut self, path: &str, rights: Rights) -> io::Result<()> {
        self.change();
        self.state.rights.get_mut(path).ok_or(io::ErrorKind::NotFound)?.group = rights.group;
        self.change();
        self.state.rights.get_mut(path).ok_or(io::ErrorKind::NotFound)?.mode = rights.mode;
        Ok(())
    }

    fn load(&mut self, module: &str, _: &[String]) -> io::Result<()> {
        for name in STACK.iter().take_while(|name| **name != module).chain([&module]) {
            self.change();
            self.state.modules.insert((*name).to_owned());
        }
        Ok(())
    }

    fn unload(&mut self, module: &str) -> io::Result<()> {
        self.change();
        assert_eq!(self.names(&format!("sys/module/{module}/holders")), [""; 0], "{module} is in use");
        assert!(self.state.modules.remove(module));
        Ok(())
    }

    fn is_claimed(&self, disk: &str) -> bool {
        self.state.claimed.contains(disk)
    }

    fn process_with(&self, wanted: &dyn Fn(&Path) -> bool) -> Option<String> {
        let held = self.state.functions.iter().filter(|(_, function)| function.held);
        let files = held.map(|(address, _)| format!("/{}", node(address)));
        files.into_iter().any(|file| wanted(Path::new(&file))).then(|| "process 7 (qemu)".to_owned())
    }

    fn journal(&self) -> io::Result<Option<String>> {
        Ok(self.journal.clone())
    }

    fn keep_journal(&mut self, text: Option<&str>) -> io::Result<()> {
        self.change();
        self.journal = text.map(str::to_owned);
        Ok(())
    }
}
