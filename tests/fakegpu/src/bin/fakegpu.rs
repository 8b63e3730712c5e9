//! Serves one modelled device on a socket: `fakegpu h100|h200|nvswitch|b200 SOCKET [FAULT...]`.
#![allow(clippy::print_stderr, reason = "a program of tests, without a printer")]

use std::path::Path;
use std::process::ExitCode;

use fakegpu::fault::Fault;
use fakegpu::model::{Chip, Model};
use fakegpu::server::Device;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, socket, faults @ ..] = words.as_slice() else {
        eprintln!("usage: fakegpu h100|h200|nvswitch|b200 SOCKET [FAULT...]");
        return ExitCode::from(2);
    };
    let (chip, id) = match device.as_str() {
        "h100" => (Chip::Gh100, 0x2330),
        "h200" => (Chip::Gh100, 0x2335),
        "nvswitch" => (Chip::Ls10, 0x22a3),
        "b200" => (Chip::Gb100, 0x2901),
        other => {
            eprintln!("fakegpu: there is no \"{other}\"");
            return ExitCode::from(2);
        }
    };
    let mut model = Model::new(chip, id);
    for word in faults {
        let Some(fault) = fault(word) else {
            eprintln!("fakegpu: there is no fault \"{word}\"");
            return ExitCode::from(2);
        };
        model.break_with(fault);
    }
    match Device::new(model).serve(Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fakegpu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fault(word: &str) -> Option<Fault> {
    Some(match word {
        "never-boots" => Fault::NeverBoots,
        "recovery" => Fault::Recovery,
        "old-firmware" => Fault::OldFirmware,
        "function-reset-keeps-mode" => Fault::FunctionResetKeepsMode,
        "every-reset-keeps-mode" => Fault::EveryResetKeepsMode,
        "forbidden" => Fault::Forbidden(8),
        _ => return None,
    })
}
