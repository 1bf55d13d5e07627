use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::deadline::Deadline;
use super::*;

/// Runs `main` on `count` workers of `driver` and waits until all have ended.
pub(crate) fn on_workers<M, Fut>(count: usize, driver: Driver, main: M)
where
    M: Fn(WorkerContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let pool = BlockingPool::start(2, 64).unwrap();
    let (_, handles) = start(count, driver, &pool, main, |_, error| panic!("{error}")).unwrap();
    for handle in handles {
        handle.join().unwrap();
    }
}

/// Both drivers, for tests that must hold on either.
pub(crate) const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

#[test]
fn a_read_waits_on_a_non_blocking_socket_and_the_sweep_ends_it() {
    for driver in DRIVERS {
        let (tell, address) = mpsc::channel::<SocketAddr>();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"ping").unwrap();
            let started = Instant::now();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            (rest, started.elapsed())
        });
        on_workers(1, driver, move |_| {
            let tell = tell.clone();
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                deadline.read_by(Instant::now() + Duration::from_secs(5), false);
                let (read, buffer) = stream.read_more(Vec::with_capacity(64)).await;
                assert_eq!((read.unwrap(), buffer.as_slice()), (4, &b"ping"[..]));
                deadline.read_by(Instant::now() + Duration::from_millis(100), false);
                let (read, buffer) = stream.read_more(buffer).await;
                assert_eq!((read.unwrap(), buffer.len()), (0, 4));
                assert!(deadline.expired());
                stream.write_all(b"late".to_vec()).await.0.unwrap();
                drop(deadline);
            }
        });
        let (rest, waited) = client.join().unwrap();
        assert_eq!(rest, b"late");
        assert!(waited < Duration::from_secs(3), "{driver:?}: closed after {waited:?}");
    }
}

#[test]
fn one_flight_serves_all_workers_and_a_panic_ends_only_its_task() {
    for driver in DRIVERS {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let flights: Arc<std::sync::OnceLock<SingleFlight<u32, u64>>> = Arc::default();
        let done = Arc::new(AtomicUsize::new(0));
        on_workers(2, driver, move |context| {
            let (counted, flights, done) = (counted.clone(), flights.clone(), done.clone());
            async move {
                let flights =
                    flights.get_or_init(|| SingleFlight::new(context.workers.clone())).clone();
                for key in 0..20 {
                    let counted = counted.clone();
                    let result = flights.run(key, move || async move {
                        counted.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(20)).await;
                        assert!(key != 13, "the unlucky one");
                        u64::from(key)
                    });
                    match result.await {
                        Ok(value) => assert_eq!(value, u64::from(key)),
                        Err(error) => assert!(key == 13, "{error}"),
                    }
                }
                // Keys of the other one may still be under way here.
                done.fetch_add(1, Ordering::Relaxed);
                while done.load(Ordering::Relaxed) < 2 {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let runs = runs.load(Ordering::Relaxed);
        assert!((20..=40).contains(&runs), "{driver:?}: {runs} runs");
    }
}

#[test]
fn files_are_written_and_read_on_either_driver() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        on_workers(1, driver, move |_| {
            let path = path.clone();
            async move {
                let file = File::create(path.clone(), 0).await.unwrap();
                file.write_all_at(Bytes::from_static(b"hello "), 0).await.unwrap();
                file.write_all_at(Bytes::from_static(b"world"), 6).await.unwrap();
                file.sync_data().await.unwrap();
                assert_eq!(file.read_at(64, 2).await.unwrap(), b"llo world");
                let (shared, length) = File::open(path.clone()).await.unwrap();
                assert_eq!(length, 11);
                let reader = File::from_shared(shared).unwrap();
                assert_eq!(reader.read_at(5, 0).await.unwrap(), b"hello");
                assert!(File::create(path.clone(), 0).await.is_err(), "must not exist yet");
                File::remove(&path).await.unwrap();
                File::remove(&path).await.unwrap();
            }
        });
    }
}

#[test]
fn calls_that_take_long_hold_up_no_others() {
    on_workers(1, Driver::Epoll, |_| async {
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        let long: Vec<_> = (0..8)
            .map(|_| {
                let released = released.clone();
                blocking_long(move || released.recv().is_err())
            })
            .collect();
        let long = futures_util::future::join_all(long);
        let others = async {
            for n in 0..8 {
                let call = timeout(Duration::from_secs(20), blocking(move || n));
                assert_eq!(call.await, Ok(Ok(n)));
            }
            drop(release);
        };
        let (ended, ()) = futures_util::future::join(long, others).await;
        assert_eq!(ended, vec![Ok(true); 8]);
    });
}

#[test]
fn a_client_that_has_gone_hides_no_other_that_waits() {
    on_workers(1, Driver::Epoll, |_| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let gone = std::net::TcpStream::connect(address).unwrap();
        // Closed by a reset, which takes its address from the socket on this side.
        socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
        drop(gone);
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let mut peers = Vec::new();
        while let Some((_, peer)) = listener.accept_waiting().unwrap() {
            peers.push(peer);
        }
        assert!(peers.contains(&waiting.local_addr().unwrap()), "{peers:?}");
    });
}
