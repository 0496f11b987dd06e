// Tests that the kit of `bench -- device --pack` starts in a root folder with only glibc and a shell. It takes two
// minutes and mounts folders, so it runs only on request: TEST_KIT=1 npx vitest run test/package/kit.test.ts

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { pack } from '../../bench/device/pack.ts';

const folder = mkdtempSync(join(tmpdir(), 'diffclass-kit-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

it('packs a kit that classifies images in a bare root folder', { timeout: 600_000 }, async (context) => {
  if (process.env.TEST_KIT !== '1') context.skip('the kit is packed and started if TEST_KIT is 1');
  const archive = await pack(folder, { weights: ['fashion-mnist'], compress: 'xz', extra: ['README.md'] });
  const script = join(import.meta.dirname, 'kit-in-bare-root.sh');
  const output = execFileSync(script, [archive], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  expect(output.match(/0000-ankle-boot\.png is "Ankle boot"/g)).toHaveLength(2);
  expect(output).toContain('none: run.sh says what is missing');
});
