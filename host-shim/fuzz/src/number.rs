// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers near what can go wrong.

use arbitrary::{Result, Unstructured};

/// A number: next to one of `anchors` more often than not, else small, near the highest, near a power of two, or any.
pub fn near(input: &mut Unstructured<'_>, anchors: &[u64]) -> Result<u64> {
    Ok(match input.arbitrary::<u8>()? {
        0..=127 if !anchors.is_empty() => {
            let offset: i8 = input.arbitrary()?;
            input.choose(anchors)?.wrapping_add_signed(offset.into())
        }
        128..=175 if !anchors.is_empty() => *input.choose(anchors)?,
        176..=199 => input.arbitrary::<u8>()?.into(),
        200..=211 => u64::MAX - u64::from(input.arbitrary::<u8>()?),
        212..=231 => {
            let offset: i8 = input.arbitrary()?;
            (1_u64 << input.int_in_range(0..=63)?).wrapping_add_signed((offset % 3).into())
        }
        232..=243 => input.arbitrary::<u16>()?.into(),
        _ => input.arbitrary()?,
    })
}
