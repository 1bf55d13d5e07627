use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::limits::BULK_BYTES_PER_POLL;
use crate::runtime::deadline::Deadline;
use crate::runtime::{ClientStream, TcpListener, bulk_turn, clock, tests as runtime_tests};

#[test]
fn head_and_file_arrive_whole_and_a_short_file_is_told() {
    for driver in runtime_tests::DRIVERS {
        let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file): (mpsc::Sender<std::net::SocketAddr>, _) =
                (tell.clone(), file.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_secs(5));
                outlet.bytes(b"head ", true).await.unwrap();
                outlet.file(&file, 1_000, 4_000_000).await.unwrap();
                assert_eq!(outlet.sent(), 4_000_005);
                let short = outlet.file(&file, 4_999_000, 2_000).await.unwrap_err();
                assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
                drop(deadline);
            }
        });
        let all = client.join().unwrap();
        assert_eq!(&all[..5], b"head ");
        assert!(all[5..4_000_005] == content[1_000..4_001_000], "{driver:?}: wrong bytes");
        assert_eq!(all.len(), 4_000_005 + 1_000);
    }
}

/// What has come while a body queued goes out with it; what has not come is the caller's to wait for.
#[test]
fn what_grows_while_it_queues_goes_out_in_one_go() {
    const FIRST: u64 = 10_000;
    const THEN: u64 = 3_000_000;
    for driver in runtime_tests::DRIVERS {
        let content: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 249) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel();
        let (lend, lent) = mpsc::channel();
        let (go, may_read) = mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            lend.send(stream.try_clone().unwrap()).unwrap();
            may_read.recv().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        let lent = Arc::new(std::sync::Mutex::new(lent));
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file): (mpsc::Sender<std::net::SocketAddr>, _) =
                (tell.clone(), file.clone());
            let (lent, go) = (lent.clone(), go.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let at_client = lent.lock().unwrap().recv().unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_secs(5));
                // Others have their turn now.
                bulk_turn(BULK_BYTES_PER_POLL).await;
                let asked = Cell::new(0);
                let readable = || {
                    let before = asked.replace(asked.get() + 1);
                    if before == 2 {
                        let came = rustix::io::ioctl_fionread(&at_client).unwrap();
                        assert_eq!(came, 0, "{driver:?}: the little that was there went by itself");
                        go.send(()).unwrap();
                    }
                    if before == 0 { FIRST } else { THEN }
                };
                assert_eq!(outlet.growing(&file, 0, readable).await.unwrap(), THEN, "{driver:?}");
                assert_eq!(outlet.sent(), THEN);
                assert_eq!(outlet.growing(&file, THEN, || THEN).await.unwrap(), THEN);
                let socket = stream.without_tls().unwrap();
                let is_corked = rustix::net::sockopt::tcp_cork(socket).unwrap();
                assert!(!is_corked, "{driver:?}: its last packet would wait");
                drop(deadline);
            }
        });
        let all = client.join().unwrap();
        assert!(all == content[..THEN as usize], "{driver:?}: wrong bytes");
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for driver in runtime_tests::DRIVERS {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * 1024 * 1024).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel::<std::net::SocketAddr>();
        let (done, wait) = mpsc::channel::<()>();
        let client = std::thread::spawn(move || {
            let stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            wait.recv().unwrap();
            drop(stream);
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file, done) = (tell.clone(), file.clone(), done.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_millis(300));
                let error = outlet.file(&file, 0, 64 * 1024 * 1024).await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{driver:?}");
                done.send(()).unwrap();
                drop(deadline);
            }
        });
        client.join().unwrap();
    }
}

/// Ten clients with little room: what their sockets do not take has to be offered again.
#[test]
fn bodies_that_go_on_and_on_arrive_whole() {
    const CLIENTS: usize = 10;
    const LENGTH: u64 = 3_000_001;
    for driver in runtime_tests::DRIVERS {
        let content: Arc<Vec<u8>> = Arc::new((0..4_000_000_u32).map(|n| (n % 253) as u8).collect());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel::<std::net::SocketAddr>();
        let expected = content.clone();
        let clients = std::thread::spawn(move || {
            let address = address.recv().unwrap();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 16 * 1024).unwrap();
                    let expected = expected.clone();
                    std::thread::spawn(move || {
                        let mut all = Vec::new();
                        stream.read_to_end(&mut all).unwrap();
                        all.len() as u64 == 5 + LENGTH
                            && all[5..] == expected[7_777..7_777 + LENGTH as usize]
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file) = (tell.clone(), file.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let mut answers = Vec::new();
                for _ in 0..CLIENTS {
                    let (stream, _) = listener.accept().await.unwrap();
                    let file = file.clone();
                    answers.push(async move {
                        let mut stream = ClientStream::plain(stream);
                        let deadline = Deadline::watch(&stream);
                        let stall = Duration::from_secs(10);
                        let mut outlet = Outlet::new(&mut stream, &deadline, stall);
                        outlet.bytes(b"head ", true).await.unwrap();
                        let begun = outlet.file_at_once(&file, 7_777, LENGTH, clock::now());
                        assert!(begun.sent() < LENGTH);
                        outlet.rest_of_file(&file, 7_777, LENGTH, begun).await.unwrap();
                        assert_eq!(outlet.sent(), 5 + LENGTH);
                        drop(deadline);
                    });
                }
                futures_util::future::join_all(answers).await;
            }
        });
        let right: Vec<bool> = clients.join().unwrap();
        assert_eq!(right, [true; CLIENTS], "{driver:?}");
    }
}

#[test]
fn the_pipe_is_empty_whatever_the_socket_took() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 241) as u8).collect();
    file.write_all(&content).unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let (mut offset, mut all) = (5, Vec::new());
    while offset < content.len() as u64 {
        let before = offset;
        let (taken, offered) =
            pipe::send(&file, &mut offset, ours.as_fd(), u64::MAX).unwrap().unwrap();
        assert_eq!(offset - before, taken);
        assert!(taken <= offered && offered <= pipe::CAPACITY);
        while let Ok(1..) = theirs.read_to_end(&mut all) {}
    }
    assert!(all == content[5..], "{} bytes", all.len());
    let end = pipe::send(&file, &mut offset, ours.as_fd(), 1).unwrap().unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    drop(theirs);
    let mut offset = 0;
    assert!(pipe::send(&file, &mut offset, ours.as_fd(), 100_000).unwrap().is_err());
    assert_eq!(offset, 0, "nothing was sent to a client that has gone");
}

/// It may have been cut after it was looked at; what has gone must not go again when it goes on.
#[test]
fn what_was_sent_before_an_error_is_sent_once() {
    for driver in runtime_tests::DRIVERS {
        let content: Vec<u8> = (0..100_000_u32).map(|n| (n % 239) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel::<std::net::SocketAddr>();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file) = (tell.clone(), file.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_secs(5));
                let begun = outlet.file_at_once(&file, 0, 150_000, clock::now());
                let rest = outlet.rest_of_file(&file, 0, 150_000, begun).await;
                assert_eq!(rest.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
                assert_eq!(outlet.sent(), 100_000);
                drop(deadline);
            }
        });
        assert!(client.join().unwrap() == content, "{driver:?}");
    }
}
