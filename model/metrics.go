package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The metrics of a final table, over all outputs of a model at once; those of a round, which must add up over nodes, are
// an Evaluation's. Outputs are a model's before any squashing: with one class a logit an example, positive above 0, and
// targets 0 or 1; with more, a row of one logit a class, and targets the index of the class. Inputs are read only, sums
// are in float64. Every metric refuses no examples at all (ErrNoExamples), outputs that are NaN or infinite
// (ErrNotFinite) and targets that cannot be.
var (
	ErrNoExamples = errors.New("no examples")
	ErrNotFinite  = errors.New("not finite")
	ErrOneClass   = errors.New("all targets are of one class")
)

// checkOutputs refuses outputs and targets that do not belong together.
func checkOutputs(outputs []float32, classes int, targets []float32) error {
	switch {
	case classes < 1:
		return fmt.Errorf("%d classes, want at least 1", classes)
	case len(targets) == 0:
		return ErrNoExamples
	case len(outputs)%classes != 0 || len(outputs)/classes != len(targets):
		return fmt.Errorf("%d outputs of %d classes for %d targets", len(outputs), classes, len(targets))
	}
	if i := notFinite(outputs); i >= 0 {
		return fmt.Errorf("example %d: output %d is %v: %w", i/classes, i%classes, outputs[i], ErrNotFinite)
	}
	top := float32(max(classes, 2) - 1)
	for i, y := range targets {
		if !(y >= 0 && y <= top) || y != float32(int(y)) {
			return fmt.Errorf("example %d: target %v, want a whole number from 0 to %v", i, y, top)
		}
	}
	return nil
}

// class is the predicted class of one row of outputs: the first of the largest, and 1 or 0 for a logit.
func class(row []float32) int {
	if len(row) == 1 {
		if row[0] > 0 {
			return 1
		}
		return 0
	}
	best := 0
	for c, z := range row {
		if z > row[best] {
			best = c
		}
	}
	return best
}

// Accuracy is the share of examples, 0 to 1, whose largest logit is that of their class; of equal ones the first counts.
// A single logit of 0 predicts class 0.
func Accuracy(outputs []float32, classes int, targets []float32) (float64, error) {
	if err := checkOutputs(outputs, classes, targets); err != nil {
		return 0, fmt.Errorf("accuracy: %w", err)
	}
	correct := 0
	for i, y := range targets {
		if class(outputs[i*classes:(i+1)*classes]) == int(y) {
			correct++
		}
	}
	return float64(correct) / float64(len(targets)), nil
}

// F1 is the harmonic mean of precision and recall, 0 to 1: of class 1 for a single logit, and otherwise the unweighted
// mean over the classes that are predicted or there. A class without a correct prediction has 0; so has a single logit's
// where class 1 is neither predicted nor there.
func F1(outputs []float32, classes int, targets []float32) (float64, error) {
	if err := checkOutputs(outputs, classes, targets); err != nil {
		return 0, fmt.Errorf("F1: %w", err)
	}
	correct := make([]int, max(classes, 2))
	named := make([]int, len(correct)) // as a prediction and as a target, which counts twice if it is both
	for i, y := range targets {
		guess := class(outputs[i*classes : (i+1)*classes])
		if guess == int(y) {
			correct[guess]++
		}
		named[guess]++
		named[int(y)]++
	}
	first := 0
	if classes == 1 {
		first = 1
	}
	sum, present := 0.0, 0
	for c := first; c < len(correct); c++ {
		if named[c] > 0 {
			sum += 2 * float64(correct[c]) / float64(named[c]) // 2TP/(2TP+FP+FN)
			present++
		}
	}
	return sum / float64(max(present, 1)), nil
}

// AUC is the area under the ROC curve, 0 to 1: the share of pairs of a positive and a negative example whose scores are
// in that order, tied pairs counting half. ErrOneClass without such a pair.
func AUC(scores, targets []float32) (float64, error) {
	if err := checkBinary(scores, targets); err != nil {
		return 0, fmt.Errorf("AUC: %w", err)
	}
	return ExactAUC(scores, targets), nil
}

// checkBinary is checkOutputs for scores of which only the order matters, with both classes there.
func checkBinary(scores, targets []float32) error {
	if err := checkOutputs(scores, 1, targets); err != nil {
		return err
	}
	if !slices.Contains(targets, 0) || !slices.Contains(targets, 1) {
		return fmt.Errorf("%w: %v", ErrOneClass, targets[0])
	}
	return nil
}

// AveragePrecision is the area under the steps of the precision-recall curve, 0 to 1, without interpolation: the sum
// over thresholds, highest first, of precision times the recall won. Equal scores are one threshold. ErrOneClass where a
// class is absent.
func AveragePrecision(scores, targets []float32) (float64, error) {
	if err := checkBinary(scores, targets); err != nil {
		return 0, fmt.Errorf("average precision: %w", err)
	}
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	var area, positives, found float64
	for i := 0; i < len(order); {
		threshold := scores[order[i]]
		before := found
		for ; i < len(order) && scores[order[i]] == threshold; i++ {
			found += float64(targets[order[i]])
		}
		area += (found - before) * found / float64(i)
	}
	for _, y := range targets {
		positives += float64(y)
	}
	return area / positives, nil
}

// LogLoss is the mean cross entropy in nats, at least 0: logistic for a single logit, softmax for more.
func LogLoss(outputs []float32, classes int, targets []float32) (float64, error) {
	if err := checkOutputs(outputs, classes, targets); err != nil {
		return 0, fmt.Errorf("log loss: %w", err)
	}
	sum := 0.0
	for i, y := range targets {
		row := outputs[i*classes : (i+1)*classes]
		if classes == 1 {
			sum += softplus((1 - 2*float64(y)) * float64(row[0]))
		} else {
			sum += logSumExp(row) - float64(row[int(y)])
		}
	}
	return sum / float64(len(targets)), nil
}

// softplus is log(1+e^z), also where e^z is none.
func softplus(z float64) float64 { return max(z, 0) + math.Log1p(math.Exp(-math.Abs(z))) }

func logSumExp(row []float32) float64 {
	top := float64(slices.Max(row))
	sum := 0.0
	for _, z := range row {
		sum += math.Exp(float64(z) - top)
	}
	return top + math.Log(sum)
}

// Perplexity is e to the power of LogLoss, at least 1: among how many equally likely classes a model with this loss
// chooses. It is infinite for a loss above 709 nats.
func Perplexity(outputs []float32, classes int, targets []float32) (float64, error) {
	loss, err := LogLoss(outputs, classes, targets)
	if err != nil {
		return 0, fmt.Errorf("perplexity: %w", err)
	}
	return math.Exp(loss), nil
}

// CalibrationError is the expected calibration error, 0 to 1 (Guo et al. 2017, §2, equation 3): the mean over bins of
// equal width in (0, 1], weighted by their examples, of the distance between how sure the model is and how often it is
// right. A probability of 0 is in the first bin. For a single logit the probability of class 1 is held against its
// frequency; for more, the probability of the predicted class against accuracy.
func CalibrationError(outputs []float32, classes int, targets []float32, bins int) (float64, error) {
	if bins < 1 || bins > 1<<20 {
		return 0, fmt.Errorf("calibration error: %d bins, want 1 to 2^20", bins)
	}
	if err := checkOutputs(outputs, classes, targets); err != nil {
		return 0, fmt.Errorf("calibration error: %w", err)
	}
	apart := make([]float64, bins) // sum of confidence − outcome
	for i, y := range targets {
		row := outputs[i*classes : (i+1)*classes]
		p, outcome := confidence(row), 0.0
		if classes == 1 && y == 1 || classes > 1 && class(row) == int(y) {
			outcome = 1
		}
		apart[max(int(math.Ceil(p*float64(bins)))-1, 0)] += p - outcome
	}
	sum := 0.0
	for _, d := range apart {
		sum += math.Abs(d)
	}
	return sum / float64(len(targets)), nil
}

// confidence is the probability of class 1 for a single logit, of the predicted class otherwise.
func confidence(row []float32) float64 {
	if len(row) == 1 {
		return Probability(row[0])
	}
	return min(math.Exp(float64(slices.Max(row))-logSumExp(row)), 1)
}

// RMSE is the root of the mean squared error, in the unit of the targets, at least 0. Targets are any finite numbers.
func RMSE(predictions, targets []float32) (float64, error) {
	sum, err := sumErrors(predictions, targets, func(d float64) float64 { return d * d })
	if err != nil {
		return 0, fmt.Errorf("RMSE: %w", err)
	}
	return math.Sqrt(sum / float64(len(targets))), nil
}

// MAE is the mean absolute error, in the unit of the targets, at least 0. Targets are any finite numbers.
func MAE(predictions, targets []float32) (float64, error) {
	sum, err := sumErrors(predictions, targets, math.Abs)
	if err != nil {
		return 0, fmt.Errorf("MAE: %w", err)
	}
	return sum / float64(len(targets)), nil
}

func sumErrors(predictions, targets []float32, of func(d float64) float64) (float64, error) {
	switch {
	case len(targets) == 0:
		return 0, ErrNoExamples
	case len(predictions) != len(targets):
		return 0, fmt.Errorf("%d predictions for %d targets", len(predictions), len(targets))
	}
	if i := max(notFinite(predictions), notFinite(targets)); i >= 0 {
		return 0, fmt.Errorf("example %d: prediction %v, target %v: %w", i, predictions[i], targets[i], ErrNotFinite)
	}
	sum := 0.0
	for i, y := range targets {
		sum += of(float64(predictions[i]) - float64(y))
	}
	return sum, nil
}
