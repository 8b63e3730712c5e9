use std::collections::{BTreeMap, VecDeque};

use spec::Tee;
use spec::agent::{Binding, Configuration, Identity, Measurements};

use super::*;

struct Fixed;

impl Guest for Fixed {
    fn identity(&self) -> Identity {
        Identity {
            guest_version: "0".to_owned(),
            kernel_release: "7".to_owned(),
            root_hash: spec::Sha256Digest([0; 32]),
            tee: Tee::None,
            hostname: "h".to_owned(),
            configuration: Configuration { binding: Binding::Absent, digest: None },
            uptime_ms: 1,
        }
    }
    fn measurements(&self) -> Result<Measurements, String> {
        Ok(Measurements { tee: Tee::None, registers: BTreeMap::new() })
    }
    fn uptime_ms(&self) -> u64 {
        7
    }
}

/// A host: what it sends, how much it will take, whether it is there.
#[derive(Default)]
struct Host {
    sends: VecDeque<Vec<u8>>,
    room: usize,
    connected: bool,
    heard: Vec<u8>,
}

impl Host {
    fn listening() -> Self {
        Self { room: usize::MAX, connected: true, ..Self::default() }
    }

    fn says(&mut self, text: &str) -> &mut Self {
        self.sends.push_back(text.as_bytes().to_vec());
        self
    }

    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.heard)).unwrap()
    }
}

impl Wire for Host {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.sends.pop_front() {
            Some(mut bytes) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                if count < bytes.len() {
                    self.sends.push_front(bytes.split_off(count));
                }
                Ok(count)
            }
            None if self.connected => Err(ErrorKind::WouldBlock.into()),
            None => Ok(0),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.connected || self.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.heard.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

const UPTIME: &str = "{\"id\":1,\"method\":\"uptime\"}\n";
const UPTIME_REPLY: &str = "{\"id\":1,\"result\":{\"uptime_ms\":7}}\n";

#[test]
fn ready_is_said_once_and_before_anything_else() {
    let (mut channel, mut host) = (Channel::new(b"ready\n".to_vec()), Host::listening());
    host.says(UPTIME);
    assert_eq!(channel.advance(&mut host, &Fixed).unwrap(), Progress::Waiting);
    assert_eq!(host.heard(), format!("ready\n{UPTIME_REPLY}"));
    channel.host_left();
    host.says(UPTIME);
    channel.advance(&mut host, &Fixed).unwrap();
    assert_eq!(host.heard(), UPTIME_REPLY);
}

#[test]
fn a_host_that_comes_late_hears_ready_whole() {
    let (mut channel, mut host) = (Channel::new(b"ready\n".to_vec()), Host::default());
    channel.advance(&mut host, &Fixed).unwrap();
    // One that takes half of it and leaves does not spoil it for the next.
    (host.connected, host.room) = (true, 3);
    channel.advance(&mut host, &Fixed).unwrap();
    assert_eq!(host.heard(), "rea");
    channel.host_left();
    host.room = usize::MAX;
    channel.advance(&mut host, &Fixed).unwrap();
    assert_eq!(host.heard(), "ready\n");
}

#[test]
fn a_host_that_does_not_listen_is_not_read() {
    let (mut channel, mut host) = (Channel::new(Vec::new()), Host::listening());
    host.room = 4;
    for _ in 0..1000 {
        host.says(UPTIME);
    }
    channel.advance(&mut host, &Fixed).unwrap();
    assert_eq!(host.sends.len(), 999);
    host.room = usize::MAX;
    channel.advance(&mut host, &Fixed).unwrap();
    assert_eq!(host.heard(), UPTIME_REPLY.repeat(1000));
}

#[test]
fn half_a_request_dies_with_its_host() {
    let (mut channel, mut host) = (Channel::new(Vec::new()), Host::listening());
    host.says("{\"id\":1,\"method\":");
    channel.advance(&mut host, &Fixed).unwrap();
    host.connected = false;
    channel.advance(&mut host, &Fixed).unwrap();
    host.connected = true;
    host.says("\"power-off\"}\n").says(UPTIME);
    assert_eq!(channel.advance(&mut host, &Fixed).unwrap(), Progress::Waiting);
    let heard = host.heard();
    assert!(heard.starts_with("{\"id\":0,\"error\":") && heard.ends_with(UPTIME_REPLY), "{heard}");
}

#[test]
fn nothing_is_answered_after_power_off() {
    let (mut channel, mut host) = (Channel::new(Vec::new()), Host::listening());
    host.says(&format!("{UPTIME}{{\"id\":2,\"method\":\"power-off\"}}\n{UPTIME}"));
    let rest = format!("{UPTIME_REPLY}{{\"id\":2,\"result\":{{}}}}\n").into_bytes();
    assert_eq!(channel.advance(&mut host, &Fixed).unwrap(), Progress::PowerOff(rest));
}
