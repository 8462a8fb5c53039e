//! Names that nobody else has: random bits of the system's, as hex digits.

/// `BYTES` random bytes, two digits each.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn hex<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_are_not_alike() {
        let (one, other) = (hex::<16>().unwrap(), hex::<16>().unwrap());
        assert!(one != other && one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
