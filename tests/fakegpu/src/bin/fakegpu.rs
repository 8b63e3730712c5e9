//! Serves modelled devices on sockets for QEMU's `vfio-user-pci`, until it is killed.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program of tests, without a printer")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fakegpu::board::{BOARDS, PRODUCTS, board, product};
use fakegpu::control::listen;
use fakegpu::fault::Fault;
use fakegpu::model::Model;
use fakegpu::server::Shared;

const USAGE: &str = "\
usage: fakegpu --model MODEL --socket SOCKET [--control SOCKET] [--serial NUMBER]
               [--memory-bar MIB] [FAULT...]
       fakegpu --board BOARD --directory DIRECTORY

The first serves one device. The second serves those of a board, each at DIRECTORY/NAME.sock with DIRECTORY/NAME.control
for its faults (NAME is gpu0, gpu1, switch0), and prints QEMU's arguments for them, a line each, when all listen.
";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("fakegpu: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--model" => options.model = Some(value()?),
            "--board" => options.board = Some(value()?),
            "--socket" => options.socket = Some(value()?.into()),
            "--control" => options.control = Some(value()?.into()),
            "--directory" => options.directory = Some(value()?.into()),
            "--memory-bar" => {
                let mib: u64 = value()?.parse().map_err(|_| "--memory-bar needs a number".to_owned())?;
                options.memory_bar_mib = Some(mib).filter(|mib| mib.is_power_of_two());
                options.memory_bar_mib.ok_or("--memory-bar needs a power of two")?;
            }
            "--serial" => options.serial = value()?.parse().map_err(|_| "--serial needs a number".to_owned())?,
            fault => {
                options.faults.push(fault.parse().map_err(|error: fakegpu::fault::UnknownFault| error.to_string())?)
            }
        }
    }
    match options {
        Options { model: Some(model), socket: Some(socket), .. } => {
            let mut device = product(&model, options.serial)
                .ok_or_else(|| unknown("model", &model, &mut PRODUCTS.iter().map(|(name, ..)| *name)))?;
            if let Some(mib) = options.memory_bar_mib {
                device = device.with_memory_bar(mib << 20);
            }
            options.faults.iter().for_each(|fault| device.break_with(*fault));
            serve(&model, device, &socket, options.control.as_deref())
        }
        Options { board: Some(name), directory: Some(directory), .. } => {
            let devices =
                board(&name).ok_or_else(|| unknown("board", &name, &mut BOARDS.iter().map(|(name, _)| *name)))?;
            serve_board(devices, &directory)
        }
        _ => Err(USAGE.to_owned()),
    }
}

#[derive(Default)]
struct Options {
    model: Option<String>,
    board: Option<String>,
    socket: Option<PathBuf>,
    control: Option<PathBuf>,
    directory: Option<PathBuf>,
    serial: u32,
    memory_bar_mib: Option<u64>,
    faults: Vec<Fault>,
}

fn unknown(what: &str, name: &str, known: &mut dyn Iterator<Item = &str>) -> String {
    format!("there is no {what} \"{name}\": there are {}", known.collect::<Vec<_>>().join(", "))
}

fn serve(name: &str, model: Model, socket: &Path, control: Option<&Path>) -> Result<(), String> {
    let device = Shared::new(name, model);
    if let Some(control) = control {
        listen(control, device.clone()).map_err(|error| format!("{}: {error}", control.display()))?;
    }
    device.serve(socket).map_err(|error| format!("{}: {error}", socket.display()))
}

fn serve_board(devices: Vec<(String, Model)>, directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut threads = Vec::new();
    let mut arguments = Vec::new();
    for (index, (name, model)) in devices.into_iter().enumerate() {
        let at = |ending: &str| directory.join(format!("{name}.{ending}"));
        let (socket, control) = (at("sock"), at("control"));
        arguments.push((socket.clone(), fakegpu::server::qemu_arguments(index, &socket)));
        threads.push(std::thread::spawn(move || serve(&name, model, &socket, Some(&control))));
    }
    for (socket, words) in arguments {
        while !socket.exists() {
            if threads.iter().any(std::thread::JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        words.iter().for_each(|word| println!("{word}"));
    }
    threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a device's thread ended".to_owned())?)
}
