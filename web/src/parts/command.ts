// Commands that people paste into a shell, made of texts that others have chosen.

/** A text as one word of a shell. */
export const quoted = (s: string) => "'" + s.replaceAll("'", `'\\''`) + "'"
