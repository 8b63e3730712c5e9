//! `[guest.gpus]`: which GPUs a guest must find, so that a relying party knows how many there are and in which mode.

use serde::{Deserialize, Serialize};

/// Most GPUs of one guest: those of a board.
pub const MAX_GPUS: u32 = 8;
/// NVSwitches of a board of Hopper GPUs; one guest has all of them or none.
pub const BOARD_SWITCHES: u32 = 4;

/// The GPUs and NVSwitches of a guest. Without NVSwitches they are in the mode `on`, with them in `ppcie`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Gpus {
    /// How many GPUs: 1 to 8.
    pub count: u32,
    /// How many NVSwitches: 4 with all eight Hopper GPUs of a board in protected PCIe, else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub switches: u32,
    /// Let the GPUs be in the mode `devtools`, in which they can be debugged and keep no secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dangerously_allow_devtools: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Gpus {
    /// The first thing that no guest could have: the text to look for in a file, and what to say of it.
    pub fn fault(&self) -> Option<(String, String)> {
        let Self { count, switches, dangerously_allow_devtools } = self;
        let fault = |key: &str, message: String| Some((key.to_owned(), message));
        if !(1..=MAX_GPUS).contains(count) {
            return fault("count", format!("count is {count}: a guest has 1 to {MAX_GPUS} GPUs"));
        }
        if ![0, BOARD_SWITCHES].contains(switches) {
            return fault(
                "switches",
                format!("switches is {switches}: a guest has all {BOARD_SWITCHES} NVSwitches of a board, or none"),
            );
        }
        if *switches > 0 && *dangerously_allow_devtools {
            let message = "protected PCIe has no development tools: leave dangerously_allow_devtools out".to_owned();
            return fault("dangerously_allow_devtools", message);
        }
        None
    }
}
