//! Intel TDX (QEMU documentation, "Intel Trusted Domain eXtension"; object `tdx-guest`).

use measure::shape::TdxShape;
use serde_json::json;

use super::arguments::{Arguments, Properties, base64};
use super::{Accelerator, TeeArguments};
use crate::host::HostFacts;
use crate::host::answers::{QGS_PORT, QGS_SOCKET, QuoteService};

/// What SMBIOS type 4 says instead of the host's CPUID leaf 1. Firmware since edk2 202505 measures SMBIOS into RTMR0, so
/// the host's own value would give every CPU stepping its own measurements. EDX and EAX of an Emerald Rapids server.
const PROCESSOR_ID: &str = "0xfabfbff000c06f2";

/// The host as it is seen by vsock (vsock(7), VMADDR_CID_HOST).
const HOST_CID: &str = "2";

pub(super) struct Tdx<'a>(pub(super) &'a TdxShape);

impl TeeArguments for Tdx<'_> {
    fn cpu(&self, model: Properties, _: Accelerator, _: &HostFacts) -> Properties {
        model.with("pmu", "off")
    }

    fn machine(&self, machine: Properties) -> Properties {
        // The TDX module offers no i8259 and no i8254 to a guest.
        machine.with("pic", "off").with("pit", "off").with("kernel-irqchip", "split")
    }

    fn confidential_guest(&self, facts: &HostFacts) -> Option<Properties> {
        // QEMU connects anew for every quote (qapi SocketAddress; GHCI, TDG.VP.VMCALL<GetQuote>).
        let socket = match QuoteService::of(facts) {
            Some(QuoteService::Unix) => json!({ "path": QGS_SOCKET, "type": "unix" }),
            Some(QuoteService::Vsock) => json!({ "cid": HOST_CID, "port": QGS_PORT.to_string(), "type": "vsock" }),
            None => {
                let guest = Properties::of("tdx-guest").with("id", "tee");
                let guest = guest.with("attributes", &format!("{:#x}", self.0.attributes));
                return Some(guest.with("mrconfigid", &base64(&self.0.mrconfigid)));
            }
        };
        // An object within an object has no other form.
        Some(Properties::json(&json!({
            "attributes": self.0.attributes,
            "id": "tee",
            "mrconfigid": base64(&self.0.mrconfigid),
            "qom-type": "tdx-guest",
            "quote-generation-socket": socket,
        })))
    }

    fn options(&self, arguments: &mut Arguments) {
        arguments.option("-smbios", Properties::with_first("type", "4").with("processor-id", PROCESSOR_ID));
    }

    fn virtio(&self, device: Properties) -> Properties {
        device.with("disable-legacy", "on").with("iommu_platform", "on")
    }

    fn shared_memory(&self) -> bool {
        true
    }

    fn types(&self) -> &'static [&'static str] {
        &["tdx-guest", "memory-backend-memfd"]
    }
}
