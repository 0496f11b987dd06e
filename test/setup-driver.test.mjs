// Which driver a machine gets, from the files of machines of many kinds. Nothing is installed here.

import { describe, expect, test } from 'vitest';
import { driverCommands, parseOsRelease, parseSources, planDriver } from '../src/setup-driver.mjs';

const DEBIAN_12 = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.example.org/"
`;

const DEB822 = `Types: deb
# snapshot of some day
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

const plan = (osRelease, ...sources) => planDriver(parseOsRelease(osRelease), sources);
const deb822 = (text) => ({ name: 'debian.sources', text });
const list = (text) => ({ name: 'sources.list', text });

describe('Debian 12', () => {
  test('takes backports from the mirror that its own sources name', () => {
    expect(plan(DEBIAN_12, list(''), deb822(DEB822))).toEqual({
      packages: ['libvulkan1', 'mesa-vulkan-drivers'],
      release: 'bookworm-backports',
      addSource: `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`,
    });
  });

  test('from one-line sources, options and all', () => {
    const text = `# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb [ arch=amd64,arm64 signed-by=/k.gpg check-valid-until=no ] http://one.example/debian/ bookworm main contrib # ours
`;
    expect(plan(DEBIAN_12, list(text)).addSource).toBe(`Types: deb
URIs: http://one.example/debian/
Suites: bookworm-backports
Components: main
Architectures: amd64 arm64
Signed-By: /k.gpg
Check-Valid-Until: no
`);
  });

  test('a key within the sources goes with them', () => {
    const text = `Types: deb
URIs: http://key.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
`;
    const { addSource } = plan(DEBIAN_12, deb822(text));
    expect(addSource).toContain('Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END');
    expect(parseSources('x.sources', addSource)).toHaveLength(1);
  });

  test('adds nothing where backports are there already, in either format', () => {
    const there = { packages: ['libvulkan1', 'mesa-vulkan-drivers'], release: 'bookworm-backports' };
    const line = 'deb [signed-by=/k.gpg] http://b.example/debian bookworm-backports main';
    expect(plan(DEBIAN_12, deb822(DEB822), list(line))).toEqual(there);
    expect(plan(DEBIAN_12, deb822(DEB822.replace('bookworm-updates', 'bookworm-backports')))).toEqual(there);
  });

  test('disabled sources do not count', () => {
    const disabled = DEB822.replaceAll('Types: deb', 'Enabled: no\nTypes: deb');
    expect(plan(DEBIAN_12, deb822(disabled)).sentence).toContain('bookworm-backports');
  });
});

describe('other systems', () => {
  test.each([
    ['Debian 13', 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n'],
    ['Debian testing', 'ID=debian\nVERSION_CODENAME=forky\n'],
    ['Ubuntu 24.04', 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'],
    ['a child of Ubuntu', 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\n'],
  ])('%s takes its own', (_, osRelease) => {
    expect(plan(osRelease, deb822(DEB822))).toEqual({ packages: ['libvulkan1', 'mesa-vulkan-drivers'] });
  });

  test('a system without apt gets a sentence', () => {
    expect(plan('ID=fedora\nVERSION_ID=40\n').sentence).toContain('lavapipe');
    expect(plan('').sentence).toContain('lavapipe');
  });
});

test('commands: without questions, from the release of the plan, as root or by sudo', () => {
  const backports = { packages: ['p'], release: 'bookworm-backports' };
  const { update, install } = driverCommands(backports, 'root');
  expect(update.at(-1)).toBe('update');
  expect(install).toContain('DEBIAN_FRONTEND=noninteractive');
  expect(install.join(' ')).toMatch(/install -y --no-install-recommends -t bookworm-backports p$/);
  expect(driverCommands({ packages: ['p'] }, 'sudo').install.slice(0, 2)).toEqual(['sudo', '-n']);
  expect(driverCommands({ packages: ['p'] }, 'sudo').install).not.toContain('-t');
});
