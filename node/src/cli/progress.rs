//! The bar for long work: on stderr, and only where that is a terminal and people read it.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Screen;

/// A bar that counts bytes.
pub(super) fn bytes_bar(screen: &Screen, what: &str) -> ProgressBar {
    let bar = if screen.for_people() && std::io::stderr().is_terminal() {
        ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10))
    } else {
        ProgressBar::hidden()
    };
    let style = "{msg:12} [{wide_bar}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    bar.set_style(
        ProgressStyle::with_template(style)
            .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> ")),
    );
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
