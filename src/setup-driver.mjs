// Plans which software Vulkan driver a machine without an adapter gets, and from where. These are pure functions of the
// machine's own files, so that every distribution can be tested on any machine; install-driver.mjs carries the plan out.

/** Names in deb822 files of the options that one-line apt sources have in brackets. */
const OPTION_FIELDS = {
  'signed-by': 'Signed-By',
  arch: 'Architectures',
  trusted: 'Trusted',
  'allow-insecure': 'Allow-Insecure',
  'allow-weak': 'Allow-Weak',
  'check-valid-until': 'Check-Valid-Until',
  'valid-until-max': 'Valid-Until-Max',
  'check-date': 'Check-Date',
  'by-hash': 'By-Hash',
};

/** Fields of an entry about what is fetched; all others are about how it is verified. */
const CONTENT_FIELDS = new Set([
  'types',
  'uris',
  'suites',
  'components',
  'enabled',
  'pdiffs',
  'languages',
  'targets',
]);

const PACKAGES = ['libvulkan1', 'mesa-vulkan-drivers'];
const BACKPORTS = 'bookworm-backports';

/**
 * Parses the text of an os-release file into its keys and values.
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function parseOsRelease(text) {
  const entries = [];
  for (const line of text.split('\n')) {
    const match = /^([A-Z0-9_]+)=(?:"(.*)"|'(.*)'|(.*))\s*$/.exec(line);
    if (match) entries.push([match[1], match[2] ?? match[3] ?? match[4] ?? '']);
  }
  return Object.fromEntries(entries);
}

/**
 * Parses an apt sources file, deb822 (`.sources`) or one-line (`.list`), into its enabled binary entries.
 * @param {string} name the file's name, whose extension determines the format
 * @param {string} text
 * @returns {{uris: string[], suites: string[], components: string[], options: Record<string, string>}[]}
 */
export function parseSources(name, text) {
  return name.endsWith('.sources') ? parseDeb822(text) : text.split('\n').flatMap(parseOneLine);
}

function parseDeb822(text) {
  const entries = [];
  const uncommented = text.split('\n').filter((line) => !line.startsWith('#'));
  for (const stanza of uncommented.join('\n').split(/\n\s*\n/)) {
    const fields = new Map();
    let last = '';
    for (const line of stanza.split('\n')) {
      const start = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
      if (start) {
        last = start[1];
        fields.set(last.toLowerCase(), { name: last, value: start[2] });
      } else if (/^\s+\S/.test(line) && last) {
        fields.get(last.toLowerCase()).value += `\n${line}`;
      }
    }
    const words = (key) => (fields.get(key)?.value ?? '').split(/\s+/).filter(Boolean);
    const disabled = /^(no|false|0|off|disable|without)$/i.test(fields.get('enabled')?.value.trim() ?? '');
    if (!words('types').includes('deb') || disabled) continue;
    const options = {};
    for (const [key, field] of fields) if (!CONTENT_FIELDS.has(key)) options[field.name] = field.value;
    entries.push({ uris: words('uris'), suites: words('suites'), components: words('components'), options });
  }
  return entries;
}

function parseOneLine(line) {
  const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
  if (!match) return [];
  const options = {};
  for (const option of (match[1] ?? '').split(/\s+/).filter(Boolean)) {
    const [key = '', value = ''] = option.split(/=(.*)/s);
    const field = OPTION_FIELDS[key.toLowerCase()];
    if (field) options[field] = field === 'Architectures' ? value.replaceAll(',', ' ') : value;
  }
  return [
    { uris: [match[2]], suites: [match[3]], components: match[4].split(/\s+/).filter(Boolean), options },
  ];
}

/**
 * Plans how a machine gets a software driver that Dawn accepts. Dawn refuses Debian 12's own Mesa (22), so Debian 12 gets
 * Mesa from its backports, on the mirror that the machine's sources already name; later Debian and Ubuntu releases get
 * their own.
 * @param {Record<string, string>} osRelease
 * @param {{name: string, text: string}[]} sources files of apt's sources
 * @returns {{packages: string[], release?: string, addSource?: string} | {sentence: string}}
 *   the packages to install, their release, and the text of the sources file to add first; or what to do by hand
 */
export function planDriver(osRelease, sources) {
  const family = [osRelease.ID, ...(osRelease.ID_LIKE ?? '').split(' ')];
  if (!family.includes('debian') && !family.includes('ubuntu')) {
    return {
      sentence: 'install a Vulkan driver for your GPU, or Mesa 23.3 or later for a software one (lavapipe)',
    };
  }
  if (osRelease.VERSION_CODENAME !== 'bookworm') return { packages: PACKAGES };
  const entries = sources.flatMap(({ name, text }) => parseSources(name, text));
  if (entries.some((entry) => entry.suites.includes(BACKPORTS)))
    return { packages: PACKAGES, release: BACKPORTS };
  const main = entries.find(
    (entry) => entry.suites.includes('bookworm') && entry.components.includes('main'),
  );
  if (!main) {
    return {
      sentence: `add the suite ${BACKPORTS} to apt's sources and install mesa-vulkan-drivers from it`,
    };
  }
  const options = Object.entries(main.options).map(([key, value]) => `${key}: ${value}\n`);
  return {
    packages: PACKAGES,
    release: BACKPORTS,
    addSource: `Types: deb\nURIs: ${main.uris[0]}\nSuites: ${BACKPORTS}\nComponents: main\n${options.join('')}`,
  };
}

/**
 * Returns the commands of a plan, each as [program, ...arguments]; `update` runs before `install`.
 * @param {{packages: string[], release?: string}} plan
 * @param {'root' | 'sudo'} privilege
 * @returns {{update: string[], install: string[]}}
 */
export function driverCommands(plan, privilege) {
  const prefix = privilege === 'sudo' ? ['sudo', '-n'] : [];
  const apt = [
    ...prefix,
    'env',
    'DEBIAN_FRONTEND=noninteractive',
    'apt-get',
    '-o',
    'DPkg::Lock::Timeout=120',
  ];
  const release = plan.release ? ['-t', plan.release] : [];
  return {
    update: [...apt, '-q', 'update'],
    install: [...apt, '-qq', 'install', '-y', '--no-install-recommends', ...release, ...plan.packages],
  };
}
