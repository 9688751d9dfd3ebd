//! Timers that are precise.
//!
//! quinn paces what it sends over a distance in bursts of 2 ms, and forgets what a burst that came too late could have held
//! (quinn-proto, `pacing.rs`). The timers of tokio tick once in a millisecond and are rounded up, so that every burst would
//! come too late by up to half of its own length, and a path could not be filled by a model of its rate. A deadline that is
//! near is therefore waited for by a thread, which the kernel wakes to within some 50 microseconds (futex(2), prctl(2)
//! `PR_SET_TIMERSLACK`); one that is far, by tokio.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    thread,
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::time::{Sleep, sleep_until};

/// A deadline that is farther away is waited for with tokio's timers, which cost less, until it is near.
const NEAR: Duration = Duration::from_millis(3);

/// tokio, with other timers.
#[derive(Debug)]
pub(super) struct PreciseRuntime {
    alarms: Arc<Alarms>,
}

impl PreciseRuntime {
    /// Starts the thread that waits. It ends when this is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let alarms = Arc::new(Alarms::default());
        let waiting = Arc::clone(&alarms);
        thread::Builder::new().name("alarms".to_owned()).spawn(move || waiting.keep())?;
        Ok(Self { alarms })
    }
}

impl Drop for PreciseRuntime {
    fn drop(&mut self) {
        self.alarms.queue().closed = true;
        self.alarms.sooner.notify_one();
    }
}

impl Runtime for PreciseRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let number = {
            let mut queue = self.alarms.queue();
            queue.numbers = queue.numbers.wrapping_add(1);
            queue.numbers
        };
        let far = Box::pin(sleep_until(far(deadline).into()));
        Box::pin(Timer { deadline, far, number, set: None, alarms: Arc::clone(&self.alarms) })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// Who is to be woken when.
#[derive(Debug, Default)]
struct Alarms {
    queue: Mutex<Queue>,
    /// Told when the first deadline has become another one.
    sooner: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// By deadline and the number of the timer. A timer has one at the most, a connection one timer.
    waiting: BTreeMap<(Instant, u64), Waker>,
    numbers: u64,
    closed: bool,
}

impl Alarms {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change is whole by itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody at the right time, until nobody can wait any more.
    fn keep(&self) {
        let mut queue = self.queue();
        while !queue.closed {
            let now = Instant::now();
            let first = queue.waiting.first_key_value().map(|((deadline, _), _)| *deadline);
            queue = match first {
                None => self.sooner.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) if deadline > now => {
                    let waited = self.sooner.wait_timeout(queue, deadline.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let due = queue.waiting.pop_first();
                    drop(queue);
                    if let Some((_, waker)) = due {
                        waker.wake();
                    }
                    self.queue()
                }
            };
        }
    }
}

/// When a deadline becomes near.
fn far(deadline: Instant) -> Instant {
    deadline.checked_sub(NEAR).unwrap_or(deadline)
}

/// One timer of a connection.
#[derive(Debug)]
struct Timer {
    deadline: Instant,
    far: Pin<Box<Sleep>>,
    number: u64,
    /// The deadline for which an alarm is set.
    set: Option<Instant>,
    alarms: Arc<Alarms>,
}

impl Timer {
    /// Sets the alarm for the deadline.
    fn set_alarm(&mut self, waker: &Waker) {
        let mut queue = self.alarms.queue();
        if let Some(before) = self.set.replace(self.deadline) {
            queue.waiting.remove(&(before, self.number));
        }
        queue.waiting.insert((self.deadline, self.number), waker.clone());
        let is_first = queue.waiting.first_key_value().is_some_and(|((_, number), _)| *number == self.number);
        drop(queue);
        if is_first {
            self.alarms.sooner.notify_one();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(set) = self.set {
            self.alarms.queue().waiting.remove(&(set, self.number));
        }
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            if left <= NEAR {
                self.set_alarm(context.waker());
                return Poll::Pending;
            }
            let far = far(self.deadline).into();
            if self.far.deadline() != far {
                self.far.as_mut().reset(far);
            }
            // Late by a tick at the most, which is less than what is left then.
            ready!(Future::poll(self.far.as_mut(), context));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn no_deadline_is_kept_too_early() {
        let runtime = PreciseRuntime::start().expect("a thread");
        let mut timer = runtime.new_timer(Instant::now());
        for micros in [0, 1, 100, 1_700, 2_999, 3_001, 5_000, 40_000, 10] {
            let deadline = Instant::now() + Duration::from_micros(micros);
            timer.as_mut().reset(deadline);
            poll_fn(|context| timer.as_mut().poll(context)).await;
            assert!(Instant::now() >= deadline, "{micros}");
        }
    }

    #[tokio::test]
    async fn the_latest_deadline_is_the_one_that_counts() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let runtime = PreciseRuntime::start().expect("a thread");
        let mut timer = runtime.new_timer(at(1));
        // Armed for one deadline, it is moved to another before that has come, near and far.
        for (first, second) in [(2, 30), (60, 3), (40, 41)] {
            timer.as_mut().reset(at(first));
            let armed = poll_fn(|context| Poll::Ready(timer.as_mut().poll(context))).await;
            assert!(armed.is_pending() || Instant::now() >= at(first));
            timer.as_mut().reset(at(second));
            poll_fn(|context| timer.as_mut().poll(context)).await;
            assert!(Instant::now() >= at(second), "{first} {second}");
        }
    }
}
