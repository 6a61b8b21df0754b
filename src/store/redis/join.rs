//! Many futures at once, within one task.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

/// Waits for all of them; their outputs in their order.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    let mut outputs: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in waiting.iter_mut().zip(&mut outputs) {
            if let Some(running) = future
                && let Poll::Ready(ready) = running.as_mut().poll(context)
            {
                *output = Some(ready);
                *future = None;
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// The first success, without waiting for the rest, or the failure that came last. None of none.
pub(super) async fn first_ok<T, E>(
    futures: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
) -> Option<Result<T, E>> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut failed = None;
    poll_fn(|context| {
        let mut place = 0;
        while place < waiting.len() {
            match waiting[place].as_mut().poll(context) {
                Poll::Pending => place += 1,
                Poll::Ready(Ok(success)) => return Poll::Ready(Some(Ok(success))),
                Poll::Ready(Err(error)) => {
                    failed = Some(Err(error));
                    drop(waiting.swap_remove(place));
                }
            }
        }
        if waiting.is_empty() { Poll::Ready(failed.take()) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_run_together_and_keep_their_order() {
        let began = Instant::now();
        let seconds = [3, 1, 2].map(|seconds| async move {
            sleep(Duration::from_secs(seconds)).await;
            seconds
        });
        assert_eq!(join_all(seconds).await, [3, 1, 2]);
        assert_eq!(began.elapsed().as_secs(), 3);
        assert!(join_all(Vec::<std::future::Ready<()>>::new()).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_is_enough_and_the_last_failure_is_told() {
        let after = |outcomes: [(u64, Result<u8, u8>); 3]| {
            first_ok(outcomes.map(|(seconds, outcome)| async move {
                sleep(Duration::from_secs(seconds)).await;
                outcome
            }))
        };
        let began = Instant::now();
        assert_eq!(after([(1, Err(1)), (9, Ok(9)), (2, Ok(2))]).await, Some(Ok(2)));
        assert_eq!(began.elapsed().as_secs(), 2);
        assert_eq!(after([(1, Err(1)), (3, Err(3)), (2, Err(2))]).await, Some(Err(3)));
        assert_eq!(first_ok(Vec::<std::future::Ready<Result<u8, u8>>>::new()).await, None);
    }
}
