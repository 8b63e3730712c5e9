//! TDX_CMD_GET_REPORT0 on `/dev/tdx_guest` (Linux `include/uapi/linux/tdx-guest.h`).
#![allow(unsafe_code, reason = "the driver has no interface but an ioctl that fills a structure")]

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;

use evidence::tdx::{TDREPORT_SIZE, TdReport};

use super::OwnReportError;

const DEVICE: &str = "/dev/tdx_guest";

/// `struct tdx_report_req`.
#[repr(C)]
struct ReportRequest {
    report_data: [u8; 64],
    td_report: [u8; TDREPORT_SIZE],
}

const _: () = assert!(size_of::<ReportRequest>() == 1088);

nix::ioctl_readwrite!(tdx_cmd_get_report0, b'T', 1, ReportRequest);

/// The TD's report. It has the run-time registers as they are now, so nothing else needs to be read for them.
pub(super) fn report() -> Result<TdReport, OwnReportError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| OwnReportError::Device { device: DEVICE, error })?;
    let mut request = ReportRequest { report_data: [0; 64], td_report: [0; TDREPORT_SIZE] };
    // SAFETY: the kernel reads and writes inside `request`, whose size is that of the kernel's structure (checked above).
    unsafe { tdx_cmd_get_report0(device.as_raw_fd(), &raw mut request) }.map_err(|error| OwnReportError::Refused {
        request: "TDX_CMD_GET_REPORT0",
        device: DEVICE,
        detail: error.to_string(),
    })?;
    Ok(TdReport::parse(&request.td_report)?)
}
