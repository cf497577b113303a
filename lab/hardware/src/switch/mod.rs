//! The Ethernet switch that the NICs of the machine are plugged into.

mod faults;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::Clock;
use crate::config::SwitchFaults;
use crate::ethernet::{Frame, MacAddress, segments};
use crate::lock;
use faults::{Fates, Path};

/// What a NIC is for the switch.
pub(crate) trait Port: Send + Sync {
    /// Takes frames that arrive together. Called from any thread, without any lock of the switch.
    fn receive(&self, frames: &[Arc<Frame>]);
}

/// Stations that are remembered beside the NICs themselves.
const MAXIMUM_STATIONS: usize = 1024;

/// Bytes that may be under way at once when the switch delays; what is more is lost.
const MAXIMUM_DELAYED_BYTES: usize = 64 << 20;

/// How long a reordered segment waits for one to pass it.
const REORDER_PATIENCE: Duration = Duration::from_millis(5);

/// Forwards frames by station address, floods those to groups and to unknown stations, and makes the
/// faults it is told to.
pub(crate) struct Switch {
    clock: Arc<Clock>,
    ports: Mutex<Vec<Weak<dyn Port>>>,
    stations: Mutex<HashMap<MacAddress, usize>>,
    disorder: Mutex<Disorder>,
    delayed_bytes: AtomicUsize,
    statistics: Mutex<SwitchStatistics>,
}

/// The faults and where they have got to.
struct Disorder {
    faults: SwitchFaults,
    /// By source and destination port.
    paths: HashMap<(usize, usize), Path>,
}

/// Counters of the switch.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct SwitchStatistics {
    /// Frames handed to the switch.
    frames: u64,
    /// Those that went to all ports.
    flooded: u64,
    /// Segments lost by the fault `drop`.
    dropped: u64,
    /// Segments put behind their successor by the fault `reorder`.
    reordered: u64,
    /// Segments that came twice by the fault `duplicate`.
    duplicated: u64,
    /// Segments lost because too many were delayed.
    delay_overflow: u64,
}

impl Switch {
    pub(crate) fn new(clock: Arc<Clock>, faults: SwitchFaults) -> Arc<Switch> {
        Arc::new(Switch {
            clock,
            ports: Mutex::default(),
            stations: Mutex::default(),
            disorder: Mutex::new(Disorder { faults, paths: HashMap::new() }),
            delayed_bytes: AtomicUsize::new(0),
            statistics: Mutex::default(),
        })
    }

    /// Plugs a NIC in. Ports are numbered in the order of this.
    pub(crate) fn attach(&self, port: Weak<dyn Port>, mac: MacAddress) {
        let mut ports = lock(&self.ports);
        lock(&self.stations).insert(mac, ports.len());
        ports.push(port);
    }

    /// Replaces the faults; random decisions begin anew from the seed.
    pub(crate) fn set_faults(&self, faults: SwitchFaults) {
        let mut disorder = lock(&self.disorder);
        *disorder = Disorder { faults, paths: HashMap::new() };
    }

    /// The counters as of now.
    pub(crate) fn statistics(&self) -> SwitchStatistics {
        *lock(&self.statistics)
    }

    /// Takes frames from a port and brings them where they belong. The caller holds no lock.
    pub(crate) fn forward(self: &Arc<Self>, source: usize, frames: Vec<Arc<Frame>>) {
        let ports = lock(&self.ports).clone();
        let mut arrivals = vec![Vec::new(); ports.len()];
        self.route(source, frames, &mut arrivals);
        for (destination, frames) in arrivals.into_iter().enumerate() {
            if !frames.is_empty() {
                self.carry((source, destination), frames, &ports[destination]);
            }
        }
    }

    fn route(&self, source: usize, frames: Vec<Arc<Frame>>, arrivals: &mut [Vec<Arc<Frame>>]) {
        let (count, mut flooded) = (frames.len() as u64, 0);
        let mut stations = lock(&self.stations);
        for frame in frames {
            let (from, to) = (frame.source(), frame.destination());
            let group = |mac: &MacAddress| mac[0] & 1 != 0;
            if !group(&from) && (stations.len() < MAXIMUM_STATIONS || stations.contains_key(&from)) {
                stations.insert(from, source);
            }
            match stations.get(&to).filter(|_| !group(&to)) {
                Some(&port) if port == source => {}
                Some(&port) => {
                    arrivals.get_mut(port).into_iter().for_each(|list| list.push(Arc::clone(&frame)))
                }
                None => {
                    flooded += 1;
                    let others = arrivals.iter_mut().enumerate().filter(|(port, _)| *port != source);
                    others.for_each(|(_, list)| list.push(Arc::clone(&frame)));
                }
            }
        }
        drop(stations);
        let mut statistics = lock(&self.statistics);
        statistics.frames += count;
        statistics.flooded += flooded;
    }

    fn carry(self: &Arc<Self>, way: (usize, usize), frames: Vec<Arc<Frame>>, port: &Weak<dyn Port>) {
        let mut disorder = lock(&self.disorder);
        if disorder.faults.none() {
            drop(disorder);
            deliver(port, &frames);
            return;
        }
        let Disorder { faults, paths } = &mut *disorder;
        let path = paths.entry(way).or_insert_with(|| Path::new(faults.seed, way.0, way.1));
        let (mut spared, mut arrivals, mut fates) = (Vec::new(), Vec::new(), Fates::default());
        for frame in frames {
            if frame.headers.has_ports() {
                for segment in segments(&frame) {
                    path.pass(faults, segment, &mut arrivals, &mut fates);
                }
            } else {
                spared.push(frame);
            }
        }
        let (held, delay) = (path.held(), Duration::from_micros(faults.delay_us));
        drop(disorder);

        let mut statistics = lock(&self.statistics);
        statistics.dropped += fates.dropped;
        statistics.reordered += fates.reordered;
        statistics.duplicated += fates.duplicated;
        drop(statistics);

        deliver(port, &spared);
        self.deliver_after(delay, arrivals, port);
        if let Some(name) = held {
            let (switch, port) = (Arc::downgrade(self), Weak::clone(port));
            self.clock.at(Instant::now() + delay + REORDER_PATIENCE, move || {
                let Some(switch) = switch.upgrade() else { return };
                let released = lock(&switch.disorder).paths.get_mut(&way).and_then(|path| path.release(name));
                if let Some(frame) = released {
                    deliver(&port, &[frame]);
                }
            });
        }
    }

    fn deliver_after(self: &Arc<Self>, delay: Duration, frames: Vec<Arc<Frame>>, port: &Weak<dyn Port>) {
        if delay.is_zero() || frames.is_empty() {
            deliver(port, &frames);
            return;
        }
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        if self.delayed_bytes.fetch_add(bytes, Ordering::Relaxed) > MAXIMUM_DELAYED_BYTES {
            self.delayed_bytes.fetch_sub(bytes, Ordering::Relaxed);
            lock(&self.statistics).delay_overflow += frames.len() as u64;
            return;
        }
        let (switch, port) = (Arc::downgrade(self), Weak::clone(port));
        self.clock.at(Instant::now() + delay, move || {
            deliver(&port, &frames);
            if let Some(switch) = switch.upgrade() {
                switch.delayed_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        });
    }
}

fn deliver(port: &Weak<dyn Port>, frames: &[Arc<Frame>]) {
    if let Some(port) = port.upgrade()
        && !frames.is_empty()
    {
        port.receive(frames);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::ethernet::{Offload, samples};

    struct TestPort {
        index: usize,
        arrived: mpsc::Sender<(usize, Arc<Frame>)>,
    }

    impl Port for TestPort {
        fn receive(&self, frames: &[Arc<Frame>]) {
            frames.iter().for_each(|frame| self.arrived.send((self.index, Arc::clone(frame))).unwrap());
        }
    }

    type Arrivals = mpsc::Receiver<(usize, Arc<Frame>)>;

    /// Three ports with the stations 02:00:00:00:00:01 to :03.
    fn three_ports(faults: SwitchFaults) -> (Arc<Switch>, Vec<Arc<TestPort>>, Arrivals) {
        let switch = Switch::new(Clock::start().unwrap(), faults);
        let (sender, receiver) = mpsc::channel();
        let ports: Vec<_> =
            (0..3).map(|index| Arc::new(TestPort { index, arrived: sender.clone() })).collect();
        for port in &ports {
            let weak: Weak<TestPort> = Arc::downgrade(port);
            switch.attach(weak, [2, 0, 0, 0, 0, port.index as u8 + 1]);
        }
        (switch, ports, receiver)
    }

    fn frame(bytes: Vec<u8>) -> Arc<Frame> {
        Frame::new(bytes, &Offload::default()).unwrap()
    }

    fn arrived(arrivals: &Arrivals) -> Vec<usize> {
        arrivals.try_iter().map(|(port, _)| port).collect()
    }

    #[test]
    fn stations_groups_and_the_unknown() {
        let (switch, _ports, arrivals) = three_ports(SwitchFaults::default());
        switch.forward(0, vec![frame(samples::udp4(1, 2, b"to :02"))]);
        assert_eq!(arrived(&arrivals), [1]);
        switch.forward(0, vec![frame(samples::arp())]);
        assert_eq!(arrived(&arrivals), [1, 2]);
        let mut unknown = samples::udp4(1, 2, b"to :77");
        unknown[5] = 0x77;
        switch.forward(0, vec![frame(unknown.clone())]);
        assert_eq!(arrived(&arrivals), [1, 2]);
        let mut from_unknown = samples::arp();
        from_unknown[11] = 0x77;
        switch.forward(2, vec![frame(from_unknown)]);
        assert_eq!(arrived(&arrivals), [0, 1]);
        switch.forward(0, vec![frame(unknown)]);
        assert_eq!(arrived(&arrivals), [2], "the switch has learned where :77 is");
        switch.forward(1, vec![frame(samples::udp4(1, 2, b"to its own port"))]);
        assert!(arrived(&arrivals).is_empty());
    }

    #[test]
    fn faults_hit_segments_and_spare_arp() {
        let (switch, _ports, arrivals) = three_ports(SwitchFaults { drop: 1.0, ..SwitchFaults::default() });
        let cut = Offload { checksum: true, segment_size: Some(1000) };
        let large = Frame::new(samples::tcp4(1, 2, &[5; 10_000]), &cut).unwrap();
        switch.forward(0, vec![Arc::clone(&large), frame(samples::arp())]);
        assert_eq!(arrived(&arrivals), [1, 2]);
        assert_eq!(switch.statistics().dropped, 10);
        switch.set_faults(SwitchFaults::default());
        switch.forward(0, vec![large]);
        assert_eq!(arrivals.try_iter().next().unwrap().1.payload().len(), 10_000, "whole without faults");
    }

    #[test]
    fn delayed_and_reordered_segments_arrive() {
        let faults = SwitchFaults { reorder: 1.0, delay_us: 500, ..SwitchFaults::default() };
        let (switch, _ports, arrivals) = three_ports(faults);
        switch.forward(0, (0..3).map(|port| frame(samples::udp4(port, 9, b"x"))).collect());
        let order: Vec<_> = (0..3).map(|_| arrivals.recv().unwrap().1.headers.source_port).collect();
        assert_eq!(order, [1, 0, 2], "the last one is let go by the clock");
    }
}
