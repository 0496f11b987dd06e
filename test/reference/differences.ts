// Derivatives by finite differences, against which every handwritten gradient is tested.

/**
 * Compares gradients of Σ dy·f with the derivatives of that sum in random directions, one operand at a time.
 * Returns the largest deviation relative to the length of the gradient. The derivatives are central
 * differences with two step sizes, extrapolated, in f64: they are exact to about 1e-8 if f is smooth.
 */
export function worstDerivative<Name extends string>(
  f: (operands: Readonly<Record<Name, Float64Array>>) => ArrayLike<number>,
  operands: Readonly<Record<Name, ArrayLike<number>>>,
  dy: ArrayLike<number>,
  gradients: Readonly<Partial<Record<Name, ArrayLike<number>>>>,
  step = 1e-4,
): number {
  const exact = Object.fromEntries(
    Object.entries<ArrayLike<number>>(operands).map(([name, values]) => [name, Float64Array.from(values)]),
  ) as Record<Name, Float64Array>;
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  let worst = 0;
  for (const [name, gradient] of Object.entries(gradients) as [Name, ArrayLike<number>][])
    for (let turn = 0; turn < 3; turn++) {
      const direction = Float64Array.from(exact[name], random);
      const at = (distance: number): number => {
        const moved = exact[name].map((v, i) => v + distance * direction[i]!);
        const values = f({ ...exact, [name]: moved });
        let sum = 0;
        for (let i = 0; i < values.length; i++) sum += dy[i]! * values[i]!;
        return sum;
      };
      const slope = (size: number) => (at(size) - at(-size)) / (2 * size);
      const measured = (4 * slope(step / 2) - slope(step)) / 3;
      let claimed = 0;
      let length = 0;
      direction.forEach((d, i) => {
        claimed += gradient[i]! * d;
        length += gradient[i]! ** 2;
      });
      worst = Math.max(worst, Math.abs(claimed - measured) / Math.max(Math.sqrt(length), 1e-3));
    }
  return worst;
}
