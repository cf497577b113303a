//! Numbers and layouts of kernel interfaces, compared with the kernel's headers by a C compiler.
//!
//! The headers are those of the system, or those in the folder that `UAPI_HEADERS` names (the `include`
//! folder of `make headers_install`, or `usr/include` of an unpacked package of newer headers). What they, or a
//! missing compiler, keep from being compared is told: a test never passes over it silently.
//!
//! A test names what a header should say, and compares:
//!
//! ```
//! use devmem_uapi_check::{Header, layouts};
//!
//! #[repr(C)]
//! struct Sync {
//!     flags: u64,
//! }
//!
//! Header::new("linux/dma-buf.h")
//!     .value("DMA_BUF_SYNC_END", 4)
//!     .values(layouts! { Sync as "dma_buf_sync" { flags } })
//!     .assert();
//! ```

mod compiler;
mod header;

pub use compiler::Failure;
pub use header::{Comparison, Header};

/// Constants of a module, as pairs for [`Header::values`]: the prefix that the header gives them, the module,
/// and their names there.
#[macro_export]
macro_rules! constants {
    ($prefix:literal, $module:path: $($name:ident),+ $(,)?) => {{
        use $module as module;
        vec![$((concat!($prefix, stringify!($name)).to_owned(), i128::from(module::$name))),+]
    }};
}

/// The sizes of structures and the places of their members, as pairs for [`Header::values`].
///
/// A member that has another name in C is given with it: `length = "len"`. Leave reserved members out:
/// headers differ in them.
#[macro_export]
macro_rules! layouts {
    ($($structure:ty as $name:literal { $($member:ident $(= $in_c:literal)?),* $(,)? })+) => {
        vec![$(
            (concat!("sizeof(struct ", $name, ")").to_owned(), size_of::<$structure>() as i128),
            $((
                concat!("offsetof(struct ", $name, ", ", $crate::layouts!(@name $member $($in_c)?), ")").to_owned(),
                std::mem::offset_of!($structure, $member) as i128,
            ),)*
        )+]
    };
    (@name $member:ident) => { stringify!($member) };
    (@name $member:ident $in_c:literal) => { $in_c };
}
