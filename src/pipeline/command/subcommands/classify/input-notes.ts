// Collects notes for the end of a run: which files were passed over, how images were changed to fit the model, and how
// many of them are unlike the images it was trained on.

import type { Model } from '../../../../graph/model.ts';
import { conversions } from '../../../images/conversions.ts';
import { type Classified, type ItemFailure, isFailure } from '../../../types.ts';
import { passedOverFiles } from '../../shared/passed-over.ts';
import { several } from '../../shared/progress.ts';

/** Collects notes on the inputs of a run of a model; `sentences` returns them at its end. */
export function inputNotes({ inputShape }: Pick<Model, 'inputShape'>) {
  const converted = conversions(inputShape);
  const passedOver = passedOverFiles();
  let unfamiliar = 0;
  return {
    onPassedOver: passedOver.add,
    onSummary: converted.add,
    onResult(result: Classified | ItemFailure) {
      if (!isFailure(result) && result.unfamiliar) unfamiliar++;
    },
    sentences() {
      const sentences = [passedOver.sentence(), ...converted.sentences()].filter(Boolean);
      if (unfamiliar > 0)
        sentences.push(
          `${several(unfamiliar, 'image')} ${unfamiliar === 1 ? 'is' : 'are'} unlike what the model was trained on ("unfamiliar" in the results): the label means little`,
        );
      return sentences;
    },
  };
}
