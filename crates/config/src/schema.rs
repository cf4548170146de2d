//! What a key is: the one description from which reading, suggestions, comparison and the reference page are made.
//!
//! Each table of the file is declared once, with [`section!`]; the declaration gives the Rust struct, the schema and the
//! reader, so that none of them can know a key that another does not.

/// One table of the file.
#[derive(Debug)]
pub struct Table {
    /// How the table is written, for example `[runners.docker]`.
    pub header: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// Its keys, in the order of the reference page.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The name as documented by GitLab Runner.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The value that applies when the key is absent; empty when there is none.
    pub default: &'static str,
    /// Unit of the value; empty when it has none.
    pub unit: &'static str,
    /// The version of GitLab Runner that brought the key; empty for the old ones.
    pub since: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// The table behind the key, for tables and lists of tables.
    pub table: Option<&'static Table>,
    /// What a change of the value needs to take effect.
    pub reload: Reload,
}

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number; whole numbers are accepted.
    Float,
    /// Text.
    String,
    /// Text that must never be printed.
    Secret,
    /// Text in which `$VAR` and `${VAR}` are replaced from the environment.
    Expanded,
    /// The same, never to be printed.
    ExpandedSecret,
    /// Text in Go's duration syntax, such as `20m0s`.
    Duration,
    /// A point in time.
    Timestamp,
    /// Text with a size, such as `512m`.
    Size,
    /// Text with a number of processors, such as `0.5` or `1/3`.
    Cpus,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Texts of the form `NAME=VALUE`.
    Assignments,
    /// A list.
    List(&'static Kind),
    /// One value, or a list of them.
    OneOrMany(&'static Kind),
    /// A table with free keys.
    Map(&'static Kind),
    /// A table with known keys.
    Table,
    /// A table that is not looked into.
    Raw,
}

/// What a changed value needs to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// As the table that holds the key; live where no table says otherwise.
    Inherit,
    /// A reload is enough. Jobs that run keep the value that they started with.
    Live,
    /// The runner entry (or, for global keys, the process) must be started again.
    Restart,
}

// === impl Table ===

impl Table {
    /// The key of exactly this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Calls `visit` for this table and every table below it, parents first.
    pub fn walk(&'static self, visit: &mut dyn FnMut(&'static Table)) {
        visit(self);
        for key in self.keys {
            if let Some(table) = key.table {
                table.walk(visit);
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    /// What is expected, as the object of "expected ...".
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Boolean => "true or false".into(),
            Self::Integer => "a whole number".into(),
            Self::Float => "a number".into(),
            Self::String | Self::Secret | Self::Expanded | Self::ExpandedSecret => "a string".into(),
            Self::Duration => "a duration such as \"20m0s\"".into(),
            Self::Timestamp => "a date and time such as 2026-01-31T12:00:00Z".into(),
            Self::Size => "a size such as \"512m\"".into(),
            Self::Cpus => "a number of processors such as \"0.5\"".into(),
            Self::Choice(names) => format!("one of {}", quoted(names)),
            Self::Assignments => "a list of strings of the form \"NAME=VALUE\"".into(),
            Self::List(Self::Table) => "a list of tables".into(),
            Self::List(kind) => format!("a list, each item being {}", kind.expected()),
            Self::OneOrMany(kind) => format!("{}, or a list of such", kind.expected()),
            Self::Map(kind) => format!("a table, each value being {}", kind.expected()),
            Self::Table | Self::Raw => "a table".into(),
        }
    }

    /// The short name of the reference page.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Boolean => "boolean".into(),
            Self::Integer => "integer".into(),
            Self::Float => "number".into(),
            Self::String => "string".into(),
            Self::Secret => "string, secret".into(),
            Self::Expanded => "string, `$VAR` expanded".into(),
            Self::ExpandedSecret => "string, secret, `$VAR` expanded".into(),
            Self::Duration => "duration".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Size => "size".into(),
            Self::Cpus => "number as string".into(),
            Self::Choice(names) => quoted(names).replace('"', "`"),
            Self::Assignments => "list of `NAME=VALUE`".into(),
            Self::List(kind) => format!("list of {}", plural(kind)),
            Self::OneOrMany(kind) => format!("{} or list", kind.name()),
            Self::Map(kind) => format!("map of {}", plural(kind)),
            Self::Table => "table".into(),
            Self::Raw => "table, free keys".into(),
        }
    }

    /// Whether a value of this kind must never be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Secret | Self::ExpandedSecret | Self::Assignments | Self::Raw => true,
            Self::List(kind) | Self::OneOrMany(kind) | Self::Map(kind) => kind.is_secret(),
            Self::Boolean
            | Self::Integer
            | Self::Float
            | Self::String
            | Self::Expanded
            | Self::Duration
            | Self::Timestamp
            | Self::Size
            | Self::Cpus
            | Self::Choice(_)
            | Self::Table => false,
        }
    }
}

// === impl Reload ===

impl Reload {
    /// The answer for a key whose table says `outer`.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        match self {
            Self::Inherit => outer,
            Self::Live => Self::Live,
            Self::Restart => Self::Restart,
        }
    }
}

/// `a, b or c`, each in quotes.
pub(crate) fn quoted(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("\"{one}\""),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("\"{name}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

fn plural(kind: &Kind) -> String {
    match kind {
        Kind::String => "strings".into(),
        Kind::Boolean => "booleans".into(),
        Kind::Float => "numbers".into(),
        Kind::Table => "tables".into(),
        Kind::List(_) => "lists".into(),
        Kind::Integer
        | Kind::Secret
        | Kind::Expanded
        | Kind::ExpandedSecret
        | Kind::Duration
        | Kind::Timestamp
        | Kind::Size
        | Kind::Cpus
        | Kind::Choice(_)
        | Kind::Assignments
        | Kind::OneOrMany(_)
        | Kind::Map(_)
        | Kind::Raw => kind.name(),
    }
}

/// Declares one table of the file: the struct, its schema and its reader.
///
/// A field is `name as "key": Type, default "..", unit "..", since ".." => restart;` where everything after the type is
/// optional and `as` is needed only when the key is not the field's name.
macro_rules! section {
    (
        $(#[doc = $tdoc:literal])*
        pub struct $name:ident = $header:literal {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(as $key:literal)? : $ty:ty
                    $(, default $default:literal)? $(, unit $unit:literal)? $(, since $since:literal)?
                    $(=> $reload:ident)? ;
            )*
        }
    ) => {
        $(#[doc = $tdoc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
        }

        impl $crate::read::Section for $name {
            const TABLE: &'static $crate::schema::Table = &$crate::schema::Table {
                header: $header,
                meaning: concat!($($tdoc, "\n",)*),
                keys: &[$(
                    $crate::schema::Key {
                        name: $crate::schema::section!(@or stringify!($field) $(, $key)?),
                        kind: <$ty as $crate::read::Field>::KIND,
                        default: $crate::schema::section!(@or "" $(, $default)?),
                        unit: $crate::schema::section!(@or "" $(, $unit)?),
                        since: $crate::schema::section!(@or "" $(, $since)?),
                        meaning: concat!($($doc, "\n",)*),
                        table: <$ty as $crate::read::Field>::TABLE,
                        reload: $crate::schema::section!(@reload $($reload)?),
                    },
                )*],
            };

            fn read(
                table: &$crate::read::Entries<'_>,
                at: &$crate::read::KeyPath,
                reader: &mut $crate::read::Reader<'_>,
            ) -> Self {
                let mut section = Self::default();
                $(
                    let key = $crate::schema::section!(@or stringify!($field) $(, $key)?);
                    if let Some((at, value)) = reader.take(table, at, key)
                        && let Some(value) = <$ty as $crate::read::Field>::read(value, &at, reader)
                    {
                        section.$field = value;
                    }
                )*
                section
            }

            fn compare(
                &self,
                new: &Self,
                at: &$crate::read::KeyPath,
                reload: $crate::schema::Reload,
                changes: &mut Vec<$crate::diff::Change>,
            ) {
                $(
                    let key = $crate::schema::section!(@or stringify!($field) $(, $key)?);
                    let own = $crate::schema::section!(@reload $($reload)?).within(reload);
                    $crate::read::Field::compare(&self.$field, &new.$field, &at.key(key), own, changes);
                )*
            }
        }
    };
    (@or $fallback:expr) => { $fallback };
    (@or $fallback:expr, $given:literal) => { $given };
    (@reload) => { $crate::schema::Reload::Inherit };
    (@reload live) => { $crate::schema::Reload::Live };
    (@reload restart) => { $crate::schema::Reload::Restart };
}

/// Declares a closed set of words.
macro_rules! choice {
    (
        $(#[doc = $tdoc:literal])*
        pub enum $name:ident { $( $(#[doc = $doc:literal])* $variant:ident = $word:literal $(| $alias:literal)* , )* }
    ) => {
        $(#[doc = $tdoc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum $name {
            $( $(#[doc = $doc])* #[serde(rename = $word)] $variant, )*
        }

        impl $name {
            /// The words that the file may use, in order.
            pub const NAMES: &'static [&'static str] = &[$($word),*];

            /// The word for this value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// The value for a word, if it is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $word $(| $alias)* => Some(Self::$variant), )* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::read::Value for $name {
            const KIND: $crate::schema::Kind = $crate::schema::Kind::Choice(Self::NAMES);

            fn read(
                value: &$crate::read::Node<'_>,
                at: &$crate::read::KeyPath,
                reader: &mut $crate::read::Reader<'_>,
            ) -> Option<Self> {
                let text = reader.text(value, at, &Self::KIND)?;
                let found = Self::from_name(text);
                if found.is_none() {
                    reader.wrong(value, at, &Self::KIND, &format!("found \"{text}\""), None);
                }
                found
            }

            fn same(&self, other: &Self) -> bool {
                self == other
            }
        }
    };
}

pub(crate) use {choice, section};
