import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import {
  coefficients,
  parseSchedule,
  readSchedule,
  type Schedule,
} from '../../../src/graph/folders/schedule.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';

const at = [0, 250, 500, 998, 999];

/** Expects equal numbers, or close ones if torch itself does not round correctly (see `Schedule`). */
function expectClose(actual: number, expected: number, exact: boolean): void {
  if (exact) expect(actual).toBe(expected);
  else expect(Math.abs(actual - expected)).toBeLessThanOrEqual(expected * (expected > 0.01 ? 6e-7 : 2e-5));
}

describe('parseSchedule', () => {
  // alphas_cumprod of diffusers 0.42.1 at the timesteps above
  it.each<[name: string, config: Record<string, unknown>, expected: number[]]>([
    [
      'DDPM',
      {},
      [
        0.9998999834060669, 0.5214229822158813, 0.07779665291309357, 4.118194192415103e-5,
        4.035830352222547e-5,
      ],
    ],
    [
      'DDPM',
      { beta_schedule: 'scaled_linear' },
      [
        0.9998999834060669, 0.8200101256370544, 0.3312746286392212, 0.000748379563447088,
        0.0007334119873121381,
      ],
    ],
    [
      'DDPM',
      { beta_schedule: 'squaredcos_cap_v2' },
      [
        0.9999586939811707, 0.8458880186080933, 0.4922850430011749, 2.428766265438753e-6,
        2.4287349909002387e-9,
      ],
    ],
    [
      'DDPM',
      { beta_schedule: 'sigmoid' },
      [
        0.9998508095741272, 0.9027990102767944, 0.29888758063316345, 4.048962364322506e-5,
        3.9681821363046765e-5,
      ],
    ],
    [
      'DDPM',
      { beta_schedule: 'laplace' },
      [0.9788462519645691, 0.7654328346252441, 0.7072834372520447, 0.20702660083770752, 0.03162277489900589],
    ],
    [
      'DDIM',
      { rescale_betas_zero_snr: true },
      [0.9998999834060669, 0.5188605785369873, 0.07524619996547699, 4.2132741739919766e-9, 0],
    ],
    [
      'DDPM',
      { beta_schedule: 'squaredcos_cap_v2', rescale_betas_zero_snr: true },
      [0.9999587535858154, 0.8458811044692993, 0.4922648072242737, 2.277813109685667e-6, 0],
    ],
    [
      'EulerDiscrete',
      { beta_schedule: 'scaled_linear', rescale_betas_zero_snr: true },
      [0.9999001026153564, 0.8152578473091125, 0.317815363407135, 7.986307792862135e-8, 2 ** -24],
    ],
    [
      'HeunDiscrete',
      {},
      [
        0.9991499781608582, 0.5687880516052246, 0.16077162325382233, 0.0015981405740603805,
        0.0015789627796038985,
      ],
    ],
    [
      'PNDM',
      { beta_schedule: 'scaled_linear', beta_start: 0.00085, beta_end: 0.012 },
      [0.9991499781608582, 0.67379230260849, 0.27633246779441833, 0.004716695751994848, 0.00466009508818388],
    ],
    [
      'HeunDiscrete',
      { beta_schedule: 'exp' },
      [
        0.9880717396736145, 0.049193527549505234, 0.0024492181837558746, 6.2185554270399734e-6,
        6.144378858152777e-6,
      ],
    ],
    [
      'LCM',
      {},
      [0.9991499781608582, 0.67379230260849, 0.27633246779441833, 0.004716695751994848, 0.00466009508818388],
    ],
    [
      'LCM',
      { rescale_betas_zero_snr: true },
      [0.9991499781608582, 0.6524567008018494, 0.24101854860782623, 1.9679629303936963e-7, 0],
    ],
    [
      'TCD',
      {},
      [0.9991499781608582, 0.67379230260849, 0.27633246779441833, 0.004716695751994848, 0.00466009508818388],
    ],
    [
      'DDIMParallel',
      {},
      [
        0.9998999834060669, 0.5214229822158813, 0.07779665291309357, 4.118194192415103e-5,
        4.035830352222547e-5,
      ],
    ],
    [
      'DDPMParallel',
      { beta_schedule: 'sigmoid' },
      [
        0.9998508095741272, 0.9027990102767944, 0.29888758063316345, 4.048962364322506e-5,
        3.9681821363046765e-5,
      ],
    ],
    [
      'DDPMParallel',
      { beta_schedule: 'laplace' },
      [0.9788462519645691, 0.7654328346252441, 0.7072834372520447, 0.20702660083770752, 0.03162277489900589],
    ],
    [
      'SASolver',
      { beta_schedule: 'squaredcos_cap_v2' },
      [
        0.9999586939811707, 0.8458880186080933, 0.4922850430011749, 2.428766265438753e-6,
        2.4287349909002387e-9,
      ],
    ],
    [
      'DDIMInverse',
      { beta_schedule: 'scaled_linear', rescale_betas_zero_snr: true },
      [0.9999001026153564, 0.8152578473091125, 0.317815363407135, 7.986307792862135e-8, 0],
    ],
    [
      'DPMSolverMultistepInverse',
      {},
      [
        0.9998999834060669, 0.5214229822158813, 0.07779665291309357, 4.118194192415103e-5,
        4.035830352222547e-5,
      ],
    ],
  ])('%s %j', (name, config, expected) => {
    const schedule = parseSchedule({ _class_name: `${name}Scheduler`, ...config }, 'scheduler_config.json');
    expect(schedule).toMatchObject({ numTrainTimesteps: 1000, predictionType: 'epsilon' });
    expect(schedule.alphasCumprod).toHaveLength(1000);
    const exact = config.beta_schedule !== 'sigmoid' && config.rescale_betas_zero_snr !== true;
    expected.forEach((value, i) => {
      expectClose(schedule.alphasCumprod[at[i]!]!, value, exact);
    });
  });

  it('uses trained betas unchanged', () => {
    const config = {
      _class_name: 'DDIMScheduler',
      num_train_timesteps: 4,
      trained_betas: [0.1, 0.2, 0.3, 0.4],
    };
    const expected = [0.8999999761581421, 0.7199999690055847, 0.5040000081062317, 0.30239999294281006];
    expect([...parseSchedule(config, 'f').alphasCumprod]).toEqual(expected);
  });

  it('handles one timestep', () => {
    const { alphasCumprod } = parseSchedule({ _class_name: 'DDPMScheduler', num_train_timesteps: 1 }, 'f');
    expect([...alphasCumprod]).toEqual([0.9998999834060669]);
  });

  const goldens = new URL('../../golden/schedulers.json', import.meta.url);
  it('agrees with the golden file', () => {
    const load = (url: URL) => JSON.parse(readFileSync(url, 'utf8'));
    const cases = load(goldens) as {
      class: string;
      config: Record<string, unknown>;
      alphas_cumprod: Record<string, number>;
    }[];
    for (const golden of cases) {
      const config = { ...golden.config };
      if (typeof config.trained_betas === 'string')
        config.trained_betas = load(new URL(config.trained_betas, goldens));
      const exact = config.beta_schedule !== 'sigmoid' && config.rescale_betas_zero_snr !== true;
      const schedule = parseSchedule({ _class_name: golden.class, ...config }, 'f');
      for (const [t, value] of Object.entries(golden.alphas_cumprod))
        expectClose(schedule.alphasCumprod[Number(t)]!, value, exact);
    }
  });

  it.each<[what: string, config: unknown, message: string | RegExp]>([
    ['no class', {}, /^f: _class_name: /],
    [
      'another class',
      { _class_name: 'EDMEulerScheduler' },
      /^f: expected one of the schedulers DDPMScheduler, .*, got "EDMEulerScheduler"$/,
    ],
    [
      'a flow-matching scheduler',
      { _class_name: 'FlowMatchEulerDiscreteScheduler' },
      /^f: expected one of the schedulers .*, got "FlowMatchEulerDiscreteScheduler"$/,
    ],
    [
      'an unknown prediction',
      { _class_name: 'DDPMScheduler', prediction_type: 'flow_prediction' },
      'f: expected prediction_type epsilon, v_prediction or sample, got "flow_prediction"',
    ],
    [
      'an unknown schedule',
      { _class_name: 'DDPMScheduler', beta_schedule: 'cosine' },
      'f: expected beta_schedule linear, scaled_linear, squaredcos_cap_v2, sigmoid, laplace of DDPMScheduler, got "cosine"',
    ],
    [
      "another class's schedule",
      { _class_name: 'DDIMScheduler', beta_schedule: 'sigmoid' },
      'f: expected beta_schedule linear, scaled_linear, squaredcos_cap_v2 of DDIMScheduler, got "sigmoid"',
    ],
    [
      'too few betas',
      { _class_name: 'DDPMScheduler', trained_betas: [0.1] },
      'f: expected 1000 trained_betas as num_train_timesteps, got 1',
    ],
    ['a beta of 2', { _class_name: 'DDPMScheduler', beta_end: 2 }, /^f: beta_end: /],
    [
      'steps as text',
      { _class_name: 'DDPMScheduler', num_train_timesteps: '1000' },
      /^f: num_train_timesteps: /,
    ],
    ['no steps', { _class_name: 'DDPMScheduler', num_train_timesteps: 0 }, /^f: num_train_timesteps: /],
    [
      'flow sigmas',
      { _class_name: 'UniPCMultistepScheduler', use_flow_sigmas: true },
      'f: use_flow_sigmas is not supported: a flow has no betas',
    ],
    [
      'continuous timesteps',
      { _class_name: 'EulerDiscreteScheduler', timestep_type: 'continuous' },
      'f: expected timestep_type discrete, got "continuous"',
    ],
    [
      'rescaling that the scheduler does not support',
      { _class_name: 'PNDMScheduler', rescale_betas_zero_snr: true },
      'f: rescale_betas_zero_snr is unknown to PNDMScheduler',
    ],
    [
      'x0 without noise',
      { _class_name: 'DDPMScheduler', prediction_type: 'sample', beta_start: 0 },
      'f: prediction_type sample needs noise at timestep 0, but its beta is 0',
    ],
    [
      'betas that cannot be rescaled',
      { _class_name: 'DDPMScheduler', rescale_betas_zero_snr: true, beta_start: 0, beta_end: 0 },
      'f: the betas give no noise schedule',
    ],
  ])('refuses %s', (_what, config, message) => {
    expect(() => parseSchedule(config, 'f')).toThrow(ModelError);
    expect(() => parseSchedule(config, 'f')).toThrow(message);
  });

  it("reads a file, including Python's infinities", async () => {
    const folder = await mkdtemp(join(tmpdir(), 'schedule-'));
    const file = join(folder, 'scheduler_config.json');
    await writeFile(file, '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}');
    expect((await readSchedule(...fileAt(file))).alphasCumprod[250]).toBe(0.5214229822158813);
    await writeFile(file, '{"_class_name": "DDPMScheduler", "beta_end": NaN}');
    await expect(readSchedule(...fileAt(file))).rejects.toThrow(/scheduler_config\.json: beta_end: .*number/);
    await writeFile(file, '{"_class_name": ');
    await expect(readSchedule(...fileAt(file))).rejects.toThrow(`${file}: not valid JSON`);
    await rm(folder, { recursive: true });
    await expect(readSchedule(...fileAt(file))).rejects.toThrow(`${file}: no such file`);
  });
});

describe('coefficients', () => {
  const schedule = (predictionType: Schedule['predictionType']): Schedule => ({
    numTrainTimesteps: 2,
    alphasCumprod: Float64Array.of(0.9, 0.36),
    predictionType,
  });

  it.each(['epsilon', 'v_prediction', 'sample'] as const)('recovers the noise from %s', (predictionType) => {
    const [x0, eps] = [0.7, -1.3];
    for (const t of [0, 1]) {
      const { a, b, alpha, beta } = coefficients(schedule(predictionType), t);
      const output = { epsilon: eps, v_prediction: a * eps - b * x0, sample: x0 }[predictionType];
      expect(alpha * output + beta * (a * x0 + b * eps)).toBeCloseTo(eps, 12);
      expect(a * a + b * b).toBeCloseTo(1, 15);
    }
    expect(coefficients(schedule(predictionType), 1)).toMatchObject({ a: 0.6, b: 0.8 });
  });

  it('rejects timesteps outside the schedule', () => {
    for (const t of [-1, 2, 0.5])
      expect(() => coefficients(schedule('epsilon'), t)).toThrow(
        `expected a timestep from 0 to 1 of the model, got ${t}`,
      );
  });
});
