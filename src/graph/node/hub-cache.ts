// Finds models in the cache of the Hugging Face hub, which its own tools fill. Nothing is downloaded here.
//
// The cache has a folder `models--ORG--NAME` per repository. Its `refs` folder has a file per branch or tag, which holds
// the hash of a commit, and `snapshots/HASH` has the files of that commit: links to blobs, or copies on systems without
// links.

import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { ModelError } from '../../errors.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** A model of the hub as users name it. */
export interface HubId {
  /** `org/name`, or `name` for the few models without an organisation. */
  readonly id: string;
  /** A branch, a tag or a commit. */
  readonly revision: string | undefined;
}

const PART = '[A-Za-z0-9_][A-Za-z0-9._-]*';
const ID = new RegExp(`^(${PART}(?:/${PART})?)(?:@([^@]+))?$`);
const FOLDER = new RegExp(`^models--(${PART}?)(?:--(${PART}))?(?:@([^@]+))?$`);

/** Returns the repository of a text such as `org/name`, `org/name@revision` or `models--org--name`; undefined for others. */
export function hubId(text: string): HubId | undefined {
  const folder = FOLDER.exec(text);
  if (folder) return { id: folder.slice(1, 3).filter(Boolean).join('/'), revision: folder[3] };
  const id = ID.exec(text);
  return id ? { id: id[1]!, revision: id[2] } : undefined;
}

/** Returns the cache's folder, by the same variables and in the same order as the library huggingface_hub does. */
export function hubCache(env: Environment = process.env): string {
  const whole = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  return (whole || join(home, 'hub')).replace(/^~(?=[/\\]|$)/, homedir());
}

/** Returns the name of the model whose snapshot a folder is, `org/name`; undefined for any other folder. */
export function snapshotName(folder: string): string | undefined {
  const found = /[/\\](models--[^/\\]+)[/\\]snapshots[/\\][^/\\]+$/.exec(resolve(folder));
  return found ? hubId(found[1]!)?.id : undefined;
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

/** Returns whether a folder is a repository of the cache. */
export const isRepository = async (path: string): Promise<boolean> =>
  basename(resolve(path)).startsWith('models--') && isFolder(join(path, 'snapshots'));

/**
 * Returns the folder of the snapshot of a model in the cache; undefined if the cache has no such model.
 * @throws ModelError if it has the model, but not this revision.
 */
export async function cachedSnapshot(
  { id, revision }: HubId,
  cache = hubCache(),
): Promise<string | undefined> {
  const repository = join(cache, `models--${id.replaceAll('/', '--')}`);
  return (await isFolder(repository)) ? snapshotOf(repository, revision) : undefined;
}

/**
 * Returns the folder of a repository's snapshot: that of `main`, of another branch or tag, or of a commit, of whose hash
 * the first 7 digits suffice. Without a revision, a repository that has lost its `main` may have a single snapshot.
 * @throws ModelError naming the revisions that are there if there is none, or if it is not clear which one is meant.
 */
export async function snapshotOf(repository: string, revision?: string): Promise<string> {
  const id = hubId(basename(resolve(repository)))?.id ?? repository;
  const wanted = revision ?? 'main';
  const download = `download it with "hf download ${id}${revision === undefined ? '' : ` --revision ${revision}`}"`;
  const inside = /^[^\\:\0]+$/.test(wanted) && !wanted.split('/').some((part) => /^\.*$/.test(part));
  if (!inside)
    throw new ModelError(`${id}: expected a branch, a tag or a commit, got the revision "${wanted}"`);
  const snapshots = (await readdir(join(repository, 'snapshots')).catch((): string[] => [])).sort();
  const ref = join(repository, 'refs', wanted);
  const commit = (await readFile(ref, 'utf8').catch(() => undefined))?.trim();
  if (commit !== undefined) {
    if (snapshots.includes(commit)) return join(repository, 'snapshots', commit);
    throw new ModelError(`${ref}: its snapshot ${commit.slice(0, 40)} is not in the cache; ${download}`);
  }
  const named =
    revision === undefined
      ? snapshots
      : snapshots.filter((hash) => hash === revision || (revision.length >= 7 && hash.startsWith(revision)));
  if (named.length === 1) return join(repository, 'snapshots', named[0]!);
  const known = `the cache has the snapshots ${snapshots.slice(0, 5).join(', ')}`;
  if (named.length > 1)
    throw new ModelError(
      `${repository}: it is not clear which revision is meant; ${known}; write ${id}@${named[0]!.slice(0, 10)}`,
    );
  throw new ModelError(
    `${repository}: no revision "${wanted}"; ${snapshots.length > 0 ? `${known}; use one of them (${id}@${snapshots[0]!.slice(0, 10)}) or ` : ''}${download}`,
  );
}
