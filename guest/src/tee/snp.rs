//! SNP_GET_REPORT on `/dev/sev-guest` (Linux `include/uapi/linux/sev-guest.h`).
#![allow(
    unsafe_code,
    reason = "the driver has no interface but an ioctl whose argument holds addresses of two buffers"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;

use evidence::snp::{AttestationReport, REPORT_SIZE};

use super::{OwnReportError, SEV_DIRECTORY};

const DEVICE: &str = "/dev/sev-guest";

/// `struct snp_report_req`.
#[repr(C)]
struct ReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

/// `struct snp_report_resp`, whose bytes are MSG_REPORT_RSP of the firmware ABI: status, size of the report, reserved to 32
/// bytes, report.
#[repr(C)]
struct ReportResponse {
    status: u32,
    report_size: u32,
    reserved: [u8; 24],
    report: [u8; REPORT_SIZE],
    rest: [u8; 4000 - 32 - REPORT_SIZE],
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    /// Firmware error in the low half, the host's in the high half.
    exit_information: u64,
}

const _: () = {
    assert!(size_of::<ReportRequest>() == 96);
    assert!(size_of::<ReportResponse>() == 4000);
    assert!(size_of::<GuestRequest>() == 32);
};

nix::ioctl_readwrite!(snp_get_report, b'S', 0, GuestRequest);

/// The guest's report, for the VMPL that the kernel runs at: the firmware refuses a more privileged one.
pub(super) fn report() -> Result<AttestationReport, OwnReportError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| OwnReportError::Device { device: DEVICE, error })?;
    let refused = |detail: String| OwnReportError::Refused { request: "SNP_GET_REPORT", device: DEVICE, detail };
    let response = ask(&device, vmpl()).map_err(refused)?;
    match response.status {
        0 => Ok(AttestationReport::parse(&response.report)?),
        status => Err(OwnReportError::Refused {
            request: "SNP_GET_REPORT",
            device: DEVICE,
            detail: format!("the firmware answered with status {status:#x}"),
        }),
    }
}

fn ask(device: &File, vmpl: u32) -> Result<ReportResponse, String> {
    let request = ReportRequest { user_data: [0; 64], vmpl, reserved: [0; 28] };
    let mut response =
        ReportResponse { status: 0, report_size: 0, reserved: [0; 24], report: [0; REPORT_SIZE], rest: [0; 2784] };
    let mut call = GuestRequest {
        message_version: 1,
        request: (&raw const request).addr() as u64,
        response: (&raw mut response).expose_provenance() as u64,
        exit_information: 0,
    };
    let _ = (&raw const request).expose_provenance();
    // SAFETY: the kernel reads 96 bytes at `request` and writes at most 4000 bytes at `response` (checked above), both of
    // which outlive the call and are not otherwise borrowed during it.
    unsafe { snp_get_report(device.as_raw_fd(), &raw mut call) }
        .map_err(|error| format!("{error}, exit information {:#x}", call.exit_information))?;
    Ok(response)
}

fn vmpl() -> u32 {
    std::fs::read_to_string(format!("{SEV_DIRECTORY}/vmpl")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
