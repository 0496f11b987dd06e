// `npm run bench -- device`: everything about one device in one command. The entry point; parts follow.

export async function main(): Promise<void> {
  throw new Error('bench device: not written yet');
}
