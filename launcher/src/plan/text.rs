//! A plan as text for people and for golden tests: complete, one fact a line, the same for the same plan.

use std::fmt;

use measure::shape::TeeShape;
use spec::digest::encode_hex;
use spec::vm::{Limits, RestartPolicy};

use super::{Plan, Role};
use crate::gpu::attach::Preparation;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts(f)?;
        for (name, value) in &self.expected.measurements {
            line(f, "expect", format_args!("{name} {value}"))?;
        }
        line(f, "facts", self.facts.join(", "))?;
        for note in &self.notes {
            line(f, "note", note)?;
        }
        if let Some(confinement) = &self.confinement {
            line(f, "confined", confinement)?;
        }
        for volume in &self.volumes {
            let what = if volume.read_only { "read only" } else { "scratch: what it holds is lost" };
            line(f, "volume", format_args!("{} {} ({what})", volume.name, volume.path.display()))?;
        }
        for drive in &self.drives {
            let what = "NVMe drive passed whole, scratch: what it holds is lost";
            line(f, "volume", format_args!("{} {} ({what})", drive.volume, drive.address))?;
        }
        for step in self.gpus.iter().flat_map(Preparation::lines) {
            line(f, "gpu", step)?;
        }
        for descriptor in &self.descriptors {
            line(f, "descriptor", format_args!("{} {}", descriptor.number, descriptor.role))?;
        }
        for (key, value) in &self.env {
            line(f, "environment", format_args!("{key}={value}"))?;
        }
        writeln!(f, "command")?;
        self.command(f)
    }
}

fn line(f: &mut fmt::Formatter<'_>, key: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{key:<12} {value}")
}

impl Plan {
    fn facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "vm", &self.name)?;
        line(f, "image", format_args!("{} (manifest {})", self.image.display(), self.manifest_sha256))?;
        line(f, "tee", format_args!("{}{}", self.tee, if self.simulation.is_some() { " (SIMULATED)" } else { "" }))?;
        let shape = &self.shape;
        line(f, "shape", format_args!("{} vCPUs {}, {} MiB", shape.vcpus, shape.cpu_model, shape.memory_mib))?;
        match &shape.tee {
            TeeShape::None => {}
            TeeShape::Snp(snp) => {
                line(f, "policy", format_args!("{:#x}", snp.policy))?;
                line(f, "host_data", encode_hex(&snp.host_data))?;
            }
            TeeShape::Tdx(tdx) => {
                line(f, "attributes", format_args!("{:#x}", tdx.attributes))?;
                line(f, "mrconfigid", encode_hex(&tdx.mrconfigid))?;
            }
        }
        if let Some((sha256, name)) = &self.firmware {
            line(f, "firmware", format_args!("{} {sha256}", name.as_deref().unwrap_or("NOT PINNED")))?;
        }
        let fallback = if self.may_fall_back { ", else tcg" } else { "" };
        line(f, "accelerator", format_args!("{}{fallback}", self.accelerator))?;
        line(f, "artifacts", if self.verify_artifacts { "verified before the guest runs" } else { "NOT VERIFIED" })?;
        let (ready, stop) = (self.ready_timeout.as_secs(), self.stop_timeout.as_secs());
        let watchdog = self.watchdog.map(|silence| format!(", silent {} s", silence.as_secs())).unwrap_or_default();
        let hang = self.hang_timeout.map(|hang| format!(", hung {} s", hang.as_secs())).unwrap_or_default();
        line(f, "deadlines", format_args!("ready {ready} s, stop {stop} s{watchdog}{hang}"))?;
        for pinned in &self.pinned {
            line(f, "vcpus", pinned)?;
        }
        if let Some(limits) = &self.limits {
            line(f, "limits", Limited(limits))?;
        }
        let Some(restart) = self.restart else { return Ok(()) };
        let when = if restart.policy == RestartPolicy::Always { "always" } else { "on failure" };
        line(
            f,
            "restart",
            format_args!("{when}, {} times in a row at most, after {} s", restart.limit, restart.delay_s),
        )
    }

    /// One option a line, its value after it.
    fn command(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.argv.iter().enumerate() {
            let after_value_option = index > 0 && self.argv.get(index - 1).is_some_and(|last| last.starts_with('-'));
            match (index, word.starts_with('-') || !after_value_option) {
                (0, _) => write!(f, "  {word}")?,
                (_, true) => write!(f, "\n    {word}")?,
                (_, false) => write!(f, " {word}")?,
            }
        }
        writeln!(f)
    }
}

/// `[host.limits]` in words.
struct Limited<'a>(&'a Limits);

impl fmt::Display for Limited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { memory, cpu_percent, threads } = self.0;
        let parts = [
            memory.map(|memory| format!("memory {memory}")),
            cpu_percent.map(|percent| format!("{percent} % of a processor")),
            threads.map(|threads| format!("{threads} threads")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qmp => "control channel",
            Self::Console => "serial console",
            Self::Agent => "agent port",
            Self::Configuration => "configuration disk",
            Self::Artifact(name) => name,
            Self::Volume(name) => return write!(f, "volume {name}"),
            Self::Vsock(cid) => return write!(f, "{} with CID {cid}", crate::network::VHOST_VSOCK),
            Self::Tap(tap) => return write!(f, "tap device {} on bridge {}", tap.name, tap.bridge),
            Self::Passt(passt) => {
                return write!(f, "socket to the passt of NIC {}: {}", passt.nic, passt.argv.join(" "));
            }
            Self::Device(path) => return path.display().fmt(f),
        })
    }
}
