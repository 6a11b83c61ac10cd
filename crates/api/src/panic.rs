//! What is told of a panic.

use std::any::Any;

/// What somebody said who panicked: the payload that was caught.
pub fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found() {
        let said = |panic: fn()| text(&*std::panic::catch_unwind(panic).expect_err("it panics")).to_owned();
        assert_eq!(said(|| panic!("plain")), "plain");
        assert_eq!(said(|| panic!("{} {}", "with", 1)), "with 1");
        assert_eq!(said(|| std::panic::panic_any(1)), "without a message");
    }
}
