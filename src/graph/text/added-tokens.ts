// Added tokens: the start, end and padding tokens, and those that a fine-tune added. They are cut out of a text before
// anything else is done with it. Up to four files define them and how they match; the rules here are those of
// transformers 5.

import { z } from 'zod';

/** How an added token matches. */
export interface AddedToken {
  readonly content: string;
  /** Whether white space on this side belongs to the match. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Whether it does not match inside a word. */
  readonly singleWord: boolean;
  /** Whether it is searched for in the normalised text (so that case does not matter), or else in the original text. */
  readonly normalized: boolean;
}

const flags = {
  content: z.string(),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.boolean().default(false),
  normalized: z.boolean().nullish(),
  special: z.boolean().default(false),
};
const tokenObject = z.object(flags);
const token = z.union([z.string(), tokenObject], {
  error: 'expected a token: a string or an object with content',
});
/** A list of tokens, or tokens by names of their own. */
const tokens = z.union([z.array(token), z.record(z.string(), token).transform(Object.values<Token>)]);
type Token = z.infer<typeof token>;

/** The roles a token can have, in the order in which transformers adds them. */
const ROLES = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;
type Role = (typeof ROLES)[number];

/** The tokens of CLIP's tokenizer, for roles that the files do not name. */
const DEFAULTS: Partial<Record<Role, string>> = {
  bos_token: '<|startoftext|>',
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
};

/** The keys of `tokenizer_config.json` and `special_tokens_map.json` that name tokens. */
export const namedTokensSchema = z.object({
  ...(Object.fromEntries(ROLES.map((role) => [role, token.nullish()])) as Record<
    Role,
    z.ZodOptional<z.ZodNullable<typeof token>>
  >),
  additional_special_tokens: tokens.nullish(),
  extra_special_tokens: tokens.nullish(),
});
type NamedTokens = z.infer<typeof namedTokensSchema>;

/** `added_tokens_decoder` of `tokenizer_config.json`: tokens by id. */
export const addedTokensDecoderSchema = z.record(z.string().regex(/^\d+$/), tokenObject);

/** `added_tokens.json`: ids by token. */
export const addedTokensFileSchema = z.record(z.string(), z.int().min(0));

/** `added_tokens` of `tokenizer.json`. */
export const addedTokensListSchema = z.array(z.object({ ...flags, id: z.int().min(0) }));

/** What the files of a folder hold about added tokens. */
interface AddedTokenFiles {
  readonly config: NamedTokens & {
    readonly added_tokens_decoder?: z.infer<typeof addedTokensDecoderSchema> | undefined;
  };
  readonly specialTokensMap?: NamedTokens | undefined;
  readonly addedTokens?: z.infer<typeof addedTokensFileSchema> | undefined;
  readonly tokenizerJson?: z.infer<typeof addedTokensListSchema> | undefined;
}

/** All added tokens of a folder, in order, with the id that a file gives; and the token of each role. */
export interface AddedTokens {
  readonly tokens: readonly (AddedToken & { readonly id: number | undefined })[];
  readonly roles: Readonly<Record<'bos' | 'eos' | 'unk' | 'pad', string>>;
}

const contentOf = (value: Token): string => (typeof value === 'string' ? value : value.content);

/**
 * Combines the files. If there is an `added_tokens_decoder`, it decides; otherwise `special_tokens_map.json` overrides
 * `tokenizer_config.json`, and ids come from `added_tokens.json` and `tokenizer.json`. A role's token that is a plain
 * string is searched for in the original text.
 */
export function gatherAddedTokens(files: AddedTokenFiles): AddedTokens {
  const { config, specialTokensMap, addedTokens, tokenizerJson } = files;
  const decoder = config.added_tokens_decoder;
  const named: NamedTokens = { ...config, ...(decoder ? {} : specialTokensMap) };
  const roleTokens = ROLES.map((role) => named[role] ?? DEFAULTS[role]).filter(
    (value) => value !== undefined,
  );
  const extra = [config, ...(decoder || !specialTokensMap ? [] : [specialTokensMap])].flatMap(
    ({ extra_special_tokens, additional_special_tokens }) =>
      extra_special_tokens ?? additional_special_tokens ?? [],
  );
  const special = new Set([...roleTokens, ...extra].map(contentOf));
  const complete = (value: Token, id?: number) => {
    const object = typeof value === 'string' ? tokenObject.parse({ content: value, special: true }) : value;
    const { content, lstrip, rstrip, single_word: singleWord } = object;
    const isSpecial = object.special || special.has(content);
    return { content, lstrip, rstrip, singleWord, normalized: object.normalized ?? !isSpecial, id };
  };

  const listed = new Map<number, ReturnType<typeof complete>>();
  if (decoder)
    for (const [id, value] of Object.entries(decoder)) listed.set(Number(id), complete(value, Number(id)));
  else {
    for (const [content, id] of Object.entries(addedTokens ?? {}))
      listed.set(id, complete(tokenObject.parse({ content }), id));
    for (const value of tokenizerJson ?? []) listed.set(value.id, complete(value, value.id));
  }
  const tokens = [...listed].sort(([a], [b]) => a - b).map(([, value]) => value);
  const withId = new Set(tokens.map(({ content }) => content));
  const seen = new Set<string>();
  for (const value of [...roleTokens, ...extra]) {
    const key = JSON.stringify(value);
    if (!withId.has(contentOf(value)) && !seen.has(key)) tokens.push(complete(value));
    seen.add(key);
  }

  const role = (name: Role): string => contentOf(named[name] ?? DEFAULTS[name]!);
  return {
    tokens: tokens.filter(({ content }) => content !== ''),
    roles: { bos: role('bos_token'), eos: role('eos_token'), unk: role('unk_token'), pad: role('pad_token') },
  };
}

/** A part of a text: an added token's id, or the text between two. */
type TextPart = number | string;

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
const WORD = String.raw`[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]`;
const endsWithWord = new RegExp(`${WORD}$`, 'u');
const startsWithWord = new RegExp(`^${WORD}`, 'u');
const spaceAtEnd = /\p{White_Space}*$/u;
const spaceAtStart = /^\p{White_Space}*/u;

/** Returns a function that cuts a text at tokens: at the leftmost match first, and at the longest token there. */
export function splitter(
  tokens: readonly (AddedToken & { readonly id: number })[],
): (text: string) => TextPart[] {
  if (tokens.length === 0) return (text) => [text];
  const byContent = new Map(tokens.map((value) => [value.content, value]));
  const longestFirst = [...byContent.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(longestFirst.map(escaped).join('|'), 'gu');
  return (text) => {
    const parts: TextPart[] = [];
    let from = 0;
    for (const match of text.matchAll(pattern)) {
      const { id, lstrip, rstrip, singleWord } = byContent.get(match[0])!;
      let start = match.index;
      let end = start + match[0].length;
      if (singleWord && (endsWithWord.test(text.slice(0, start)) || startsWithWord.test(text.slice(end))))
        continue;
      if (lstrip) start = Math.max(from, start - spaceAtEnd.exec(text.slice(0, start))![0].length);
      if (rstrip) end += spaceAtStart.exec(text.slice(end))![0].length;
      if (from < start) parts.push(text.slice(from, start));
      parts.push(id);
      from = end;
    }
    if (from < text.length) parts.push(text.slice(from));
    return parts;
  };
}
