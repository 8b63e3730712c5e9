//! The kernel that a component compiled, before it becomes a part of an image: its configuration must keep to the table that
//! lies beside it, and to a floor that no table lowers. Both documents are shipped with the image. They are outputs of the component,
//! whose script and patches are trusted: what is held here are its words, not the kernel.

mod floor;

use std::collections::BTreeMap;

use spec::Sha256Digest;
use spec::component::Component;
use spec::hardening::{Configuration, Deviation, Hardening};
use spec::manifest::{AcpiAdmission, Artifact};
use spec::recipe::kernel_output;

use super::{BuildError, Output};

/// A kernel that a component compiled.
#[derive(Clone, Copy, Debug)]
pub struct CompiledKernel<'a> {
    /// The component.
    pub component: &'a Component,
    /// The files that it left, by name.
    pub outputs: &'a BTreeMap<String, Vec<u8>>,
    /// The sets of ACPI tables that it admits. Where there is none, it takes whatever tables it is given, and its command line
    /// says so.
    pub acpi: Option<&'a AcpiAdmission>,
}

impl CompiledKernel<'_> {
    /// The word of the command line for its ACPI admission.
    pub(super) fn admission(&self) -> String {
        self.acpi.map_or_else(|| "bullion.acpi=unchecked".to_owned(), AcpiAdmission::word)
    }
}

/// The configuration and the table in an image directory.
const DOCUMENTS: [(&str, &str); 2] =
    [("kernel.config", kernel_output::CONFIGURATION), ("kernel.hardening.toml", kernel_output::HARDENING)];

/// Refuses files that the component did not leave, and a configuration that does not keep to its table.
pub(super) fn check(kernel: &CompiledKernel<'_>) -> Result<(), BuildError> {
    let component = kernel.component.inputs.name.clone();
    let others = kernel.outputs.keys().map(String::as_str).filter(|name| !kernel_output::ALL.contains(name));
    for output in kernel_output::ALL.into_iter().chain(others) {
        let made = kernel.component.outputs.get(output).map(|artifact| artifact.sha256);
        let given = kernel.outputs.get(output).map(|bytes| Sha256Digest::of(bytes));
        if made.is_none() || made != given {
            return Err(BuildError::OtherKernel { component, output: output.to_owned() });
        }
    }
    let deviations = deviations(kernel.outputs)?;
    if deviations.is_empty() { Ok(()) } else { Err(BuildError::Hardening { component, deviations }) }
}

fn deviations(outputs: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Deviation>, BuildError> {
    let text = |name: &str| String::from_utf8_lossy(outputs.get(name).map_or(&[][..], Vec::as_slice));
    let (configuration, table) = (text(kernel_output::CONFIGURATION), text(kernel_output::HARDENING));
    let unreadable = BuildError::KernelText;
    let configuration = Configuration::parse(kernel_output::CONFIGURATION, &configuration).map_err(unreadable)?;
    let table = Hardening::parse(kernel_output::HARDENING, &table).map_err(BuildError::KernelText)?;
    let mut deviations = table.deviations(&configuration);
    // The table may say it, too, or the opposite.
    let has_modules = outputs.keys().any(|name| kernel_output::is_module(name));
    let below = floor::deviations(&configuration, has_modules).into_iter();
    let below: Vec<Deviation> = below.filter(|one| deviations.iter().all(|said| said.name != one.name)).collect();
    deviations.extend(below);
    Ok(deviations)
}

/// Writes the configuration and the table into the image directory.
pub(super) fn documents(
    kernel: &CompiledKernel<'_>,
    output: &Output,
) -> Result<BTreeMap<String, Artifact>, BuildError> {
    let write = |(name, of): (&str, &str)| {
        let bytes = kernel.outputs.get(of).map_or(&[][..], Vec::as_slice);
        Ok((name.to_owned(), output.write(name, bytes)?))
    };
    DOCUMENTS.into_iter().map(write).collect()
}
