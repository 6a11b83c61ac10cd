//! What simulations did, counted.

/// A struct of counters that can be added up.
#[macro_export]
macro_rules! counted {
    ($(#[$doc:meta])* $visible:vis struct $name:ident { $($(#[$note:meta])* $field:ident: $number:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        $visible struct $name {
            $($(#[$note])* $visible $field: $number,)*
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}
