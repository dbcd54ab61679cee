//! What becomes of connections when a VM is saved, and of those that its guest has when it is restored.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::guest::{BUF_ALLOC, CID, Guest, Socket, read_now};
use crate::virtio::state::DeviceState;
use crate::virtio::vsock::packet::{Header, Op, SHUTDOWN_BOTH};
use crate::virtio::vsock::{MAX_CONNECTIONS, PortsV1, ResetV1, VsockConfig, VsockDevice, VsockStateV1};

/// What the device would have in a snapshot.
fn state(guest: &Guest) -> VsockStateV1 {
    match guest.harness.save().device {
        DeviceState::VsockV1(state) => state,
        other => panic!("{other:?}"),
    }
}

/// The RSTs among the packets that the guest gets, by the guest's ports.
fn resets(guest: &mut Guest) -> Vec<u32> {
    let received = guest.received();
    assert!(received.iter().all(|packet| packet.header.op == Op::Rst), "{received:?}");
    received.iter().map(|packet| packet.header.dst_port).collect()
}

#[test]
fn saving_disturbs_no_connection() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1, 52);
    stream.write_all(b"before ").unwrap();
    let saved = state(&guest);
    assert_eq!(saved, state(&guest));
    assert_eq!(saved.connections, [PortsV1 { host: 52, guest: 1 }]);
    stream.write_all(b"after").unwrap();
    let data: Vec<u8> = guest.received().into_iter().flat_map(|packet| packet.data).collect();
    assert_eq!(data, b"before after");
    guest.say(socket, Op::Rw, b"and back");
    assert_eq!(read_now(&stream), b"and back");
    assert_eq!(guest.accept(80).0.guest, 80);
}

#[test]
fn a_restored_guest_hears_of_the_reset_before_it_hears_anything_else() {
    let mut guest = Guest::new();
    let event = guest.add_event_buffer();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1, 52);
    let mut restored = guest.restored(CID);
    restored.harness.resume();
    let interrupts = restored.harness.interrupts();
    assert!(interrupts > 0);
    // It does not know yet, and goes on.
    assert_eq!(restored.offer(&[(socket.header(Op::Rw, 4), b"lost")]), 0);
    let _client = restored.client(b"CONNECT 80\n");
    assert_eq!(restored.ops(), []);
    restored.take_reset(event);
    assert_eq!(restored.taken(), 1);
    assert_eq!(restored.ops(), [Op::Rst, Op::Request], "of what it said, and of the host program");
    let listener = restored.listen(53);
    let (socket, other) = restored.connect(&listener, 2, 53);
    restored.say(socket, Op::Rw, b"new");
    assert_eq!(read_now(&other), b"new");
    // The VM that was saved has its own still.
    stream.write_all(b"old").unwrap();
    assert_eq!(guest.one().data, b"old");
}

#[test]
fn a_guest_without_a_buffer_for_events_gets_a_rst_for_each_connection() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let _connections: Vec<_> = (1..=3).map(|port| guest.connect(&listener, port, 52)).collect();
    let (_, _client) = guest.accept(80);
    let mut restored = guest.restored(CID);
    assert_eq!(state(&restored).resets.len(), 4, "saved again before it has run");
    let mut again = restored.restored(CID);
    for restored in [&mut restored, &mut again] {
        restored.harness.resume();
        let mut ports = resets(restored);
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3, 80]);
        assert_eq!(state(restored).resets, []);
    }
}

#[test]
fn what_waits_for_an_answer_gets_one_besides_the_event() {
    let mut guest = Guest::without_buffers();
    let event = guest.add_event_buffer();
    let _listener = guest.listen(52);
    let socket = |guest| Socket { guest, host: 52, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
    // One that is asked for, one that is closed, and one that nobody takes.
    guest.say(socket(1), Op::Request, &[]);
    guest.say(socket(2), Op::Request, &[]);
    guest.send(socket(2).shutdown(SHUTDOWN_BOTH), &[]);
    guest.say(Socket { host: 99, ..socket(3) }, Op::Request, &[]);
    assert_eq!(state(&guest).connections, []);
    let mut restored = guest.restored(CID);
    restored.add_buffers(8, 4096);
    restored.harness.resume();
    restored.take_reset(event);
    let mut ports = resets(&mut restored);
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3]);
}

#[test]
fn a_host_program_that_the_guest_does_not_know_of_yet_is_not_told_of() {
    let mut guest = Guest::without_buffers();
    let _client = guest.client(b"CONNECT 80\n");
    guest.run();
    let mut restored = guest.restored(CID);
    restored.add_buffers(8, 4096);
    restored.harness.resume();
    assert_eq!(restored.ops(), []);
    guest.add_buffers(8, 4096);
    assert_eq!(guest.ops(), [Op::Request]);
}

#[test]
fn a_guest_that_does_not_take_the_event_is_not_waited_for_for_ever() {
    let mut guest = Guest::new();
    guest.add_event_buffer();
    let mut restored = guest.restored(CID);
    restored.harness.resume();
    let header = Socket { guest: 1, host: 52, buf_alloc: BUF_ALLOC, fwd_cnt: 0 }.header(Op::Rw, 0);
    assert_eq!(restored.offer(&[(header, &[])]), 0);
    let begin = Instant::now();
    while restored.taken() == 0 {
        restored.harness.run_once(Duration::from_secs(10));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert!(begin.elapsed() > Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_eq!(restored.ops(), [Op::Rst]);
}

#[test]
fn a_guest_that_is_given_another_context_id_is_answered_by_the_old_one_until_it_knows() {
    let mut guest = Guest::new();
    let event = guest.add_event_buffer();
    let listener = guest.listen(52);
    let (socket, _stream) = guest.connect(&listener, 1, 52);
    let mut restored = guest.restored(77);
    assert_eq!(restored.harness.config(0, 8), 77_u64.to_le_bytes());
    restored.harness.resume();
    restored.offer(&[(socket.header(Op::Rw, 0), &[])]);
    restored.take_reset(event);
    let reset = restored.one().header;
    assert_eq!((reset.op, reset.dst_cid, reset.dst_port), (Op::Rst, CID, 1));
    let _listener = restored.listen(52);
    let request = Header { src_cid: 77, ..socket.header(Op::Request, 0) };
    restored.send(request, &[]);
    let response = restored.one().header;
    assert_eq!((response.op, response.dst_cid), (Op::Response, 77));
    // Whom nobody ever was.
    restored.send(Header { src_cid: 78, ..request }, &[]);
    assert_eq!(restored.ops(), []);
}

#[test]
fn receive_buffers_that_the_device_holds_are_all_there_after_a_restore() {
    let mut guest = Guest::without_buffers();
    guest.add_buffers(1, 4096);
    let (_, mut client) = guest.accept(80);
    // A buffer that is of no use is between those that are.
    guest.add_buffers(40, 512);
    guest.add_buffers(1, 8);
    guest.add_buffers(40, 512);
    client.write_all(&vec![7; 4096 + 30 * 512]).unwrap();
    while guest.harness.run_once(Duration::ZERO) {}
    let queue = &guest.harness.save().queues[0];
    assert_eq!(queue.next_avail, queue.next_used, "none is taken that is not given back");
    let mut restored = guest.restored(CID);
    restored.harness.resume();
    // Each packet finds a buffer of its own, the ones that were used before the restore excepted.
    let mut client = restored.client(b"CONNECT 81\n");
    let mut data = Vec::new();
    let received = restored.received();
    let request = received.iter().find(|packet| packet.header.op == Op::Request).unwrap().header;
    let socket = Socket { guest: 81, host: request.src_port, buf_alloc: 1 << 20, fwd_cnt: 0 };
    restored.say(socket, Op::Response, &[]);
    client.write_all(&vec![9; 100_000]).unwrap();
    for packet in restored.received() {
        data.extend(packet.data);
    }
    assert_eq!(data.len(), 100_000);
    assert!(data.iter().all(|byte| *byte == 9));
    assert_eq!(restored.metrics.invalid_packets.get(), 1, "the one of no use");
}

#[test]
fn a_device_that_no_driver_used_is_restored_as_that() {
    let folder = tempfile::TempDir::new().unwrap();
    let device = |name: &str| {
        let config = VsockConfig { vsock_id: None, guest_cid: CID, uds_path: folder.path().join(name) };
        VsockDevice::new(&config).unwrap()
    };
    let saved = crate::virtio::queue_harness::Harness::new(device("a"));
    let restored = Arc::new(Mutex::new(device("b")));
    let mut restored = saved.restored(restored, &saved.save()).unwrap();
    restored.resume();
    restored.start(0, 16);
    restored.add_chain(2, &[crate::virtio::queue_harness::Buffer::writable(0x10_0000, 4)]);
    restored.kick(2);
    assert_eq!(restored.take_used(2), [], "nothing was reset for this driver");
}

#[test]
fn a_state_that_no_device_can_be_in_is_refused() {
    let guest = Guest::new();
    let saved = guest.harness.save();
    let refused = |change: &dyn Fn(&mut VsockStateV1)| {
        let mut hostile = saved.clone();
        let DeviceState::VsockV1(state) = &mut hostile.device else { panic!() };
        change(state);
        let folder = tempfile::TempDir::new().unwrap();
        let config = VsockConfig { vsock_id: None, guest_cid: CID, uds_path: folder.path().join("v") };
        let device = Arc::new(Mutex::new(VsockDevice::new(&config).unwrap()));
        guest.harness.restored(device, &hostile).err().map(|error| error.to_string())
    };
    assert_eq!(refused(&|_| ()), None);
    let ports = PortsV1 { host: 1, guest: 2 };
    let reset = ResetV1 { src_cid: 0, dst_cid: u64::MAX, src_port: 0, dst_port: 0, socket_type: 7 };
    assert_eq!(refused(&|state| state.guest_cid = 2).unwrap(), "no guest has the context id 2");
    assert_eq!(
        refused(&|state| state.next_port = 7).unwrap(),
        "port 7: the host's are 1073741824 to 2147483647"
    );
    assert_eq!(
        refused(&|state| state.connections = vec![ports; MAX_CONNECTIONS + 1]).unwrap(),
        "1024 connections and 0 RSTs: a guest has at most 1023, and 1279 of both"
    );
    assert_eq!(
        refused(&|state| state.resets = vec![reset; 1280]).unwrap(),
        "0 connections and 1280 RSTs: a guest has at most 1023, and 1279 of both"
    );
    assert_eq!(
        refused(&|state| {
            state.active = false;
            state.connections = vec![ports];
        })
        .unwrap(),
        "1 connections and 0 RSTs without a driver: a guest has at most 1023, and 1279 of both"
    );
    // The same ports many times over, or ports that are nobody's, are the guest's to make sense of.
    assert_eq!(
        refused(&|state| {
            state.connections = vec![ports; MAX_CONNECTIONS];
            state.resets = vec![reset; 256];
        }),
        None
    );
}
