use super::*;
use crate::{
    model,
    proxy::{
        fixture::{Here, endpoint, mirror, nobody, run, web, worker},
        worker::Worker,
    },
};
use std::net::SocketAddr;
use tokio::{task::yield_now, time::timeout};

const SOON: Duration = Duration::from_secs(5);

fn limited(max_connections: u32, max_pending_requests: u32) -> model::Http {
    let limits = model::Limits { max_connections, max_pending_requests, ..model::Limits::default() };
    model::Http { limits, ..model::Http::default() }
}

/// A connection to the endpoint at `address`.
async fn take(worker: &Worker, namespace: u64, address: SocketAddr, want: Want) -> Result<Http1, NoConnection> {
    let service = web(worker);
    let endpoint = service.endpoints.iter().find(|e| e.address == address).unwrap();
    worker.pool.http1(&Here(namespace), &service, endpoint, want, &Cell::default()).await
}

/// Lets everybody else do what can be done now.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[test]
fn a_kept_connection_is_used_again_by_its_namespace_and_not_where_a_new_one_is_wanted() {
    run(async {
        let (address, accepted) = endpoint(|stream| mirror(stream, 200)).await;
        let worker = worker(&[address], model::Http::default());
        let first = take(&worker, 1, address, Want::Any).await.unwrap();
        let second = take(&worker, 1, address, Want::Any).await.unwrap();
        worker.pool.put(first);
        worker.pool.put(second);
        for want in [Want::Any, Want::Sure, Want::Any, Want::Sure] {
            let kept = take(&worker, 1, address, want).await.unwrap();
            worker.pool.put(kept);
        }
        settle().await;
        assert_eq!(accepted.get(), 2);
        let other = take(&worker, 2, address, Want::Any).await.unwrap();
        let fresh = take(&worker, 1, address, Want::Fresh).await.unwrap();
        settle().await;
        assert_eq!((accepted.get(), web(&worker).state.connections.load(Ordering::Relaxed)), (4, 4));
        drop((other, fresh));
        assert_eq!(web(&worker).state.connections.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_connection_that_its_endpoint_closed_is_not_handed_out() {
    run(async {
        let (address, accepted) = endpoint(|stream| async move { drop(stream) }).await;
        let worker = worker(&[address], model::Http::default());
        let closed = take(&worker, 1, address, Want::Any).await.unwrap();
        worker.pool.put(closed);
        settle().await;
        let another = take(&worker, 1, address, Want::Sure).await.unwrap();
        settle().await;
        assert_eq!(accepted.get(), 2);
        drop(another);
    });
}

#[test]
fn where_there_is_no_place_one_waits_for_a_connection_and_no_more_than_may() {
    run(async {
        let (address, accepted) = endpoint(|stream| mirror(stream, 200)).await;
        let worker = worker(&[address], limited(1, 1));
        let held = take(&worker, 1, address, Want::Any).await.unwrap();
        let waits = {
            let worker = Rc::clone(&worker);
            tokio::task::spawn_local(async move { take(&worker, 1, address, Want::Any).await })
        };
        settle().await;
        let state = Arc::clone(&web(&worker).state);
        assert_eq!(state.pending.load(Ordering::Relaxed), 1);
        let refused = take(&worker, 1, address, Want::Any).await;
        assert_eq!(refused.err(), Some(NoConnection::TooManyWait));
        // Kept, and used by whoever waits.
        worker.pool.put(held);
        let held = timeout(SOON, waits).await.unwrap().unwrap().unwrap();
        assert_eq!((accepted.get(), state.pending.load(Ordering::Relaxed)), (1, 0));
        // Closed, and its place is taken by whoever waits.
        let waits = {
            let worker = Rc::clone(&worker);
            tokio::task::spawn_local(async move { take(&worker, 1, address, Want::Any).await })
        };
        settle().await;
        drop(held);
        let held = timeout(SOON, waits).await.unwrap().unwrap().unwrap();
        settle().await;
        assert_eq!((accepted.get(), state.connections.load(Ordering::Relaxed)), (2, 1));
        drop(held);
        assert!(worker.pool.waiting.borrow().is_empty());
    });
}

#[test]
fn a_connection_at_rest_makes_room_for_one_to_another_endpoint() {
    run(async {
        let (one, _) = endpoint(|stream| mirror(stream, 200)).await;
        let (two, accepted) = endpoint(|stream| mirror(stream, 200)).await;
        let worker = worker(&[one, two], limited(1, 8));
        let rests = take(&worker, 1, one, Want::Any).await.unwrap();
        worker.pool.put(rests);
        let other = timeout(SOON, take(&worker, 1, two, Want::Any)).await.unwrap().unwrap();
        settle().await;
        assert_eq!((accepted.get(), web(&worker).state.connections.load(Ordering::Relaxed)), (1, 1));
        drop(other);
    });
}

#[test]
fn what_rests_for_too_long_or_in_a_namespace_that_ends_is_closed() {
    run(async {
        let (address, _) = endpoint(|stream| mirror(stream, 200)).await;
        let http = model::Http { idle_http: Duration::from_secs(10), ..model::Http::default() };
        let worker = worker(&[address], http);
        let state = Arc::clone(&web(&worker).state);
        let open = || state.connections.load(Ordering::Relaxed);
        for namespace in [1, 2] {
            let rests = take(&worker, namespace, address, Want::Any).await.unwrap();
            worker.pool.put(rests);
        }
        worker.pool.sweep(worker.now());
        assert_eq!(open(), 2);
        worker.pool.forget(2);
        assert_eq!(open(), 1);
        worker.pool.sweep(worker.now() + Duration::from_secs(11));
        assert_eq!(open(), 0);
    });
}

#[test]
fn requests_of_http2_wait_for_one_connection_and_hear_together_that_there_is_none() {
    run(async {
        let gone = nobody();
        let worker = worker(&[gone], model::Http::default());
        let both = [0, 1].map(|_| {
            let worker = Rc::clone(&worker);
            tokio::task::spawn_local(async move {
                let service = web(&worker);
                worker.pool.http2(&Here(1), &service, &service.endpoints[0], &Cell::default()).await.err()
            })
        });
        for one in both {
            let why = timeout(SOON, one).await.unwrap().unwrap();
            assert_eq!(why, Some(NoConnection::Failed(std::io::ErrorKind::ConnectionRefused)));
        }
        let counts = web(&worker).endpoints[0].state.connections.counts();
        assert_eq!((counts.opened, counts.closed), (1, 1), "it was tried once for both");
        assert_eq!(web(&worker).state.connections.load(Ordering::Relaxed), 0);
    });
}
