//! An amount of memory as people write it.

use std::str::FromStr;

/// Bytes, more than none; read from a number alone or with a unit of powers of ten or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBytes(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for MemoryBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no size; expected for example 8GiB or 6500MB");
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (number, factor) = unit
            .map_or((text, 1), |(name, factor)| (text.strip_suffix(name).unwrap_or(text), *factor));
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBytes;

    #[test]
    fn sizes_have_units() {
        let read = |text: &str| text.parse::<MemoryBytes>().unwrap();
        let read = ["8GiB", "6500MB", "512 MiB", "1000", "1kB"].map(read);
        let bytes = [8 << 30, 6_500_000_000, 512 << 20, 1000, 1000];
        assert_eq!(read, bytes.map(MemoryBytes));
        for bad in ["", "GiB", "8GIB", "-1GB", "0B", "99999999999TiB", "1.5GB"] {
            assert!(bad.parse::<MemoryBytes>().is_err(), "{bad}");
        }
    }
}
