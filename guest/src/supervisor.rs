//! The rest of the guest's life: answers the host, reaps children, passes on what the workload has to say, waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use spec::agent::{Event, Workload};

use crate::agent::{self, Guest as _};
use crate::channel::{Channel, Progress};
use crate::children::Children;
use crate::console;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::port::Port;
use crate::power::PowerOffRequested;
use crate::process::child_signals;
use crate::shell;
use crate::start::Started;
use crate::watchdog::Watchdog;
use crate::workload::{Report, Runner};

/// Marks of the sources of events.
const CHILDREN: u64 = 0;
const PORT: u64 = 1;
const WORKLOAD: u64 = 2;

/// A port that is not there is looked for often at first, when its driver may still be at work, and then seldom.
const EAGER: Duration = Duration::from_secs(1);
const EAGER_INTERVAL: Duration = Duration::from_millis(5);
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Says that the guest is ready and serves until the host asks for power-off or the workload has ended.
pub(crate) fn supervise(guest: Started) -> Result<PowerOffRequested, Failure> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_fail_doing(Stage::Supervise, "epoll_create1")?;
    let signals = SignalFd::with_flags(&child_signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .or_fail_doing(Stage::Supervise, "signalfd")?;
    epoll
        .add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, CHILDREN))
        .or_fail_doing(Stage::Supervise, "watching for children")?;
    let mut watchdog = guest.config.watchdog.map(Watchdog::arm).transpose()?;
    let mut channel = Channel::new(agent::ready(&guest));
    console::ready(&guest.identity());
    let children = Arc::new(Children::default());
    if guest.release {
        console::close()?;
    } else {
        shell::begin(&children)?;
    }
    let runner = Runner::begin(&guest.config, &guest.drives, &children)?;
    if let Some(runner) = &runner {
        epoll
            .add(runner.wake(), EpollEvent::new(EpollFlags::EPOLLIN, WORKLOAD))
            .or_fail_doing(Stage::Supervise, "watching the workload")?;
    }
    let since = Instant::now();
    let mut port = None;
    loop {
        if port.is_none() {
            port = open_port(&epoll)?;
        }
        let ended = runner.as_ref().map_or(Ok(false), |runner| pass_on(runner, &mut channel))?;
        if let Some(open) = &mut port {
            match channel.advance(open, &guest) {
                Ok(Progress::Waiting) => {}
                Ok(Progress::PowerOff(reply)) => {
                    port.into_iter().for_each(|port| port.finish(&reply));
                    // A workload that stops is the guest's work, too.
                    let mut feed = || watchdog.iter_mut().for_each(|watchdog| drop(watchdog.feed()));
                    runner.iter().for_each(|runner| runner.stop(&mut feed));
                    return Ok(PowerOffRequested);
                }
                // The port was taken away. Closing it takes it out of the epoll set.
                Err(_) => {
                    port = None;
                    channel.host_left();
                }
            }
        }
        if ended {
            let unsent = channel.into_unsent();
            port.into_iter().for_each(|port| port.finish(&unsent));
            return Ok(PowerOffRequested);
        }
        let looked_for = match port {
            Some(_) => None,
            None if since.elapsed() < EAGER => Some(EAGER_INTERVAL),
            None => Some(IDLE_INTERVAL),
        };
        // Here and nowhere else: whatever keeps this loop from coming round keeps the watchdog hungry.
        let hungry = watchdog.as_mut().map(Watchdog::feed).transpose()?;
        if wait(&epoll, looked_for.into_iter().chain(hungry).min())? {
            channel.host_left();
        }
        while signals.read_signal().or_fail_doing(Stage::Supervise, "reading a signal")?.is_some() {}
        children.reap();
    }
}

/// Passes on what the workload has to say; true once it has ended.
fn pass_on(runner: &Runner, channel: &mut Channel) -> Result<bool, Failure> {
    let mut ended = false;
    for report in runner.reports() {
        match report {
            Report::State(workload) => {
                let is_last = matches!(workload, Workload::Ended { .. });
                ended |= is_last;
                // Another state follows one that a host does not listen to: a workload that starts again and again must not fill memory.
                channel.say(&agent::encode(&Event::Workload { workload }), !is_last);
            }
            Report::Line(line) => channel.say(&agent::encode(&Event::Output { line }), true),
            Report::Failed(failure) => return Err(failure),
        }
    }
    Ok(ended)
}

/// Opens the port and watches it for changes. Only changes: the driver reports a host that is not connected as a hang-up
/// for as long as it lasts, and a level-triggered wait would spin.
fn open_port(epoll: &Epoll) -> Result<Option<Port>, Failure> {
    let Some(port) = Port::open() else { return Ok(None) };
    let changes = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(&port, EpollEvent::new(changes, PORT)).or_fail_doing(Stage::Supervise, "watching the port")?;
    Ok(Some(port))
}

/// Waits for an event, no longer than `most`; true when the host has left the port.
fn wait(epoll: &Epoll, most: Option<Duration>) -> Result<bool, Failure> {
    // Rounded up: waking up just before it is time would mean looking again in a loop.
    let rounded = |time: Duration| EpollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
    let timeout = most.map_or(EpollTimeout::NONE, rounded);
    let mut events = [EpollEvent::empty(); 3];
    let count = match epoll.wait(&mut events, timeout) {
        Err(Errno::EINTR) => 0,
        other => other.or_fail_doing(Stage::Supervise, "epoll_wait")?,
    };
    Ok(events.iter().take(count).any(|event| event.data() == PORT && event.events().contains(EpollFlags::EPOLLHUP)))
}
