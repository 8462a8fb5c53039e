//! The sixteen points on a sphere that a DECODE step is snapped to.
//!
//! The network froze them as a file; they came out of an optimisation that does not repeat to the last bit. So the only
//! way to have them is to be given the file, and its digest is checked: either the tensor's bytes alone, or the `.pt`
//! file they were published in, where they lie somewhere in one piece. Source: Gonka's vLLM plugin, `poc/sphere.py`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::reflection::norm;

/// Points of the codebook.
pub const POINTS: usize = 16;
/// Dimensions of the sphere they lie on.
pub const SPHERE_DIMS: usize = 256;

/// SHA-256 of the points as little-endian f32, row by row.
pub(super) const RAW_SHA256: &str =
    "2201d1093583f43f328dd4643ddf1f34737f6da8c1956395c43fd093e357e34f";
/// SHA-256 of the published file that holds them.
const PT_SHA256: &str = "73d57b52b284c0efb0aaabe47707fd5d281d70abbd58fd04a6c5766a74a3c4b9";
const RAW_BYTES: usize = 4 * POINTS * SPHERE_DIMS;
/// A saved tensor has a page or two of its own around the bytes; anything longer is something else.
const FILE_BYTES_MAX: u64 = 1 << 18;
/// Added to a length before dividing by it, as the network does.
const NORM_FLOOR: f64 = 1e-8;
/// What stands for the margin of a point that is none: more than any two points are apart in score.
pub const MARGIN_OUT_OF_RANGE: f64 = 2.0;

/// Why a codebook is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CodebookError {
    /// The file.
    #[error("codebook {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is something else.
    #[error(
        "codebook {}: its SHA-256 is {found}, not that of the network's file (the points {RAW_SHA256}, the .pt file {PT_SHA256}); artifacts made with it would be taken for fraud", path.display()
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// The digest of what it holds.
        found: String,
    },
}

/// The points.
#[derive(Clone, PartialEq)]
pub struct Codebook {
    /// `[POINTS, SPHERE_DIMS]`.
    points: Vec<f32>,
}

impl std::fmt::Debug for Codebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Codebook")
    }
}

/// What a query came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snap {
    /// The nearest point.
    pub point: u8,
    scores: [f64; POINTS],
}

impl Snap {
    /// How much the nearest point is ahead of the next: the older definition of a step's margin.
    #[must_use]
    pub fn own_margin(&self) -> f64 {
        let best = self.scores[usize::from(self.point)];
        let others =
            self.scores.iter().enumerate().filter(|(at, _)| *at != usize::from(self.point));
        let second = others.fold(f64::NEG_INFINITY, |second, (_, score)| second.max(*score));
        best - second
    }

    /// How much the nearest point is ahead of the one that was claimed: the newer definition. 0 where they agree.
    #[must_use]
    pub fn claimed_margin(&self, claimed: u8) -> f64 {
        let best = self.scores[usize::from(self.point)];
        self.scores.get(usize::from(claimed)).map_or(MARGIN_OUT_OF_RANGE, |score| best - score)
    }
}

impl Codebook {
    /// Reads the network's file, and takes nothing else.
    ///
    /// # Errors
    /// [`CodebookError`].
    pub fn read(path: &Path) -> Result<Self, CodebookError> {
        let failed = |source| CodebookError::File { path: path.to_owned(), source };
        let mut data = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut data).map_err(failed)?;
        Self::checked(&data, RAW_SHA256, PT_SHA256)
            .ok_or_else(|| CodebookError::Foreign { path: path.to_owned(), found: hex(&data) })
    }

    /// Points that are *not* the network's, for tests of everything around them. What is made with these is wrong to
    /// every validator.
    #[must_use]
    pub fn not_the_networks(points: Vec<f32>) -> Option<Self> {
        (points.len() == POINTS * SPHERE_DIMS).then_some(Self { points })
    }

    /// The points out of a file with one of two digests.
    fn checked(data: &[u8], raw_sha256: &str, container_sha256: &str) -> Option<Self> {
        let found = hex(data);
        if found == raw_sha256 {
            return Some(Self::of_raw(data));
        }
        if found != container_sha256 {
            return None;
        }
        // Saved tensors lie in one piece, on newer versions at a multiple of 64: the piece with the right digest is it.
        let last = data.len().checked_sub(RAW_BYTES)?;
        let aligned = (0..=last).step_by(64);
        let others = (0..=last).filter(|at| at % 64 != 0);
        let piece = |at: usize| data.get(at..at + RAW_BYTES);
        aligned
            .chain(others)
            .filter_map(piece)
            .find(|piece| hex(piece) == raw_sha256)
            .map(Self::of_raw)
    }

    fn of_raw(data: &[u8]) -> Self {
        let (words, _) = data.as_chunks::<4>();
        Self { points: words.iter().map(|word| f32::from_le_bytes(*word)).collect() }
    }

    /// The point nearest to the direction of `picked`, `SPHERE_DIMS` numbers of any length; nothing if one of them is
    /// not finite. Of equally near points the first.
    #[must_use]
    pub fn snap(&self, picked: &[f64]) -> Option<Snap> {
        if picked.len() != SPHERE_DIMS || picked.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let length = norm(picked) + NORM_FLOOR;
        let mut scores = [0.0; POINTS];
        for (score, point) in scores.iter_mut().zip(self.points.chunks_exact(SPHERE_DIMS)) {
            let dot: f64 = point.iter().zip(picked).map(|(c, q)| f64::from(*c) * q).sum();
            *score = dot / length;
        }
        let mut point = 0;
        for (at, score) in scores.iter().enumerate() {
            if *score > scores[point] {
                point = at;
            }
        }
        // There are sixteen.
        Some(Snap { point: point as u8, scores })
    }
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..POINTS * SPHERE_DIMS).flat_map(|at| (at as f32 / 7.0).to_le_bytes()).collect()
    }

    #[test]
    fn only_the_file_with_the_right_digest_is_taken() {
        let raw = bytes();
        let (raw_digest, mut container) = (hex(&raw), vec![7u8; 331]);
        container.extend(&raw);
        container.extend([9; 40]);
        let container_digest = hex(&container);
        let read = |data: &[u8]| Codebook::checked(data, &raw_digest, &container_digest);
        let alone = read(&raw).unwrap();
        assert_eq!(alone.points[8], 8.0 / 7.0);
        assert_eq!(read(&container).unwrap(), alone);
        let mut bent = raw.clone();
        bent[100] ^= 1;
        assert!(read(&bent).is_none() && read(&raw[1..]).is_none() && read(&[]).is_none());
        // A container of the right digest that does not hold the points.
        assert!(Codebook::checked(&bent, &raw_digest, &hex(&bent)).is_none());
    }

    #[test]
    fn any_other_file_is_told_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codebook.bin");
        assert!(matches!(Codebook::read(&path), Err(CodebookError::File { .. })));
        std::fs::write(&path, bytes()).unwrap();
        let error = Codebook::read(&path).unwrap_err().to_string();
        assert!(error.contains(&hex(&bytes())) && error.contains(RAW_SHA256), "{error}");
        assert!(Codebook::not_the_networks(vec![0.0; 5]).is_none());
    }

    #[test]
    fn a_query_snaps_to_the_nearest_point_with_its_margins() {
        let mut points = vec![0f32; POINTS * SPHERE_DIMS];
        for point in 0..POINTS {
            points[point * SPHERE_DIMS + point] = 1.0;
        }
        let book = Codebook::not_the_networks(points).unwrap();
        let mut query = vec![0.0; SPHERE_DIMS];
        (query[3], query[5]) = (40.0, 30.0);
        let snap = book.snap(&query).unwrap();
        assert_eq!(snap.point, 3);
        assert!((snap.own_margin() - 0.2).abs() < 1e-9);
        assert!((snap.claimed_margin(5) - 0.2).abs() < 1e-9);
        assert!((snap.claimed_margin(9) - 0.8).abs() < 1e-9);
        assert_eq!((snap.claimed_margin(3), snap.claimed_margin(16)), (0.0, 2.0));
        query[7] = f64::NAN;
        assert_eq!(book.snap(&query), None);
        assert_eq!(book.snap(&query[1..]), None);
        // Nothing at all is as near to every point.
        assert_eq!(book.snap(&[0.0; SPHERE_DIMS]).unwrap().point, 0);
    }
}
