//! Telling a service manager how far a VM is: one datagram a change (sd_notify(3)), and signs of life for its watchdog.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. A service manager that does not listen is never waited for.

use std::cell::Cell;
use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How many signs of life are given in the time after which the service manager misses them.
const BEATS: u32 = 3;

/// The way to the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
    next: Cell<Option<Instant>>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn from_environment() -> Self {
        let of = |key: &str| env::var(key).ok().filter(|value| !value.is_empty());
        let ours = of("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = of("WATCHDOG_USEC").filter(|_| ours).and_then(|usec| usec.parse().ok());
        Self::to(of("NOTIFY_SOCKET").as_deref(), watchdog.map(Duration::from_micros))
    }

    fn to(socket: Option<&str>, watchdog: Option<Duration>) -> Self {
        let address = socket.and_then(|socket| match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(socket).ok(),
        });
        let to = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        Self { to, every: watchdog.map(|time| time / BEATS), next: Cell::new(None) }
    }

    /// The guest is ready.
    pub(crate) fn ready(&self) {
        self.send("READY=1\nSTATUS=the guest is ready");
        self.next.set(self.every.map(|_| Instant::now()));
    }

    /// It will end.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// What it does.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// When `beat` has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next.get()
    }

    /// Gives a sign of life where one is due.
    pub(crate) fn beat(&self, now: Instant) {
        if let (Some(every), Some(_)) = (self.every, self.next.get().filter(|due| *due <= now)) {
            self.send("WATCHDOG=1");
            self.next.set(now.checked_add(every));
        }
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// A line that begins with another word would be another message.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_hears_one_message_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::to(path.to_str(), Some(Duration::from_secs(30)));
        notifier.status("QEMU died\nREADY=1");
        assert_eq!(heard(&manager), "STATUS=QEMU died READY=1");
        let now = Instant::now();
        notifier.beat(now);
        assert_eq!((notifier.deadline(), manager.recv(&mut [0; 9]).is_err()), (None, true), "no watchdog before READY");
        notifier.ready();
        assert!(heard(&manager).starts_with("READY=1\n"));
        let now = notifier.deadline().unwrap();
        notifier.beat(now);
        assert_eq!(heard(&manager), "WATCHDOG=1");
        assert_eq!(notifier.deadline(), Some(now + Duration::from_secs(10)));
        notifier.beat(now + Duration::from_secs(9));
        assert!(manager.recv(&mut [0; 9]).is_err());
    }

    #[test]
    fn an_abstract_socket_is_one_as_well_and_none_is_none() {
        let name = format!("bullion-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::to(Some(&format!("@{name}")), None).stopping("bye");
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=bye");
        let nobody = Notifier::to(None, Some(Duration::from_secs(3)));
        nobody.ready();
        nobody.beat(Instant::now());
    }
}
