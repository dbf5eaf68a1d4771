//! How wide the terminal is.

use super::layout::WIDTH;

/// Characters in a line of the terminal, by `COLUMNS` or as it says itself; [`WIDTH`] elsewhere.
pub(super) fn width(terminal: bool) -> usize {
    if !terminal {
        return WIDTH;
    }
    let said = std::env::var("COLUMNS").ok();
    let said = said.and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    said.or_else(of_stdout).unwrap_or(WIDTH)
}

fn of_stdout() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel writes one winsize, which `size` is.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}
