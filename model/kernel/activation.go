package kernel

import "math"

// Activate is dst = act(x); dst may be x. Sigmoid is within four units in the last place, Tanh within seven.
func Activate(dst, x []float32, act Activation) {
	for lo, hi := range blocks(len(dst)) {
		d, x := dst[lo:hi], x[lo:hi]
		switch act {
		case ReLU:
			use.relu(d, x)
		case Sigmoid:
			use.sigmoid(d, x)
		case Tanh:
			use.tanh(d, x)
		default:
			copy(d, x)
		}
	}
}

// ActivationGrad multiplies grad by the derivative of act, which it has from y, what act returned.
func ActivationGrad(grad, y []float32, act Activation) {
	for lo, hi := range blocks(len(grad)) {
		g, y := grad[lo:hi], y[lo:hi]
		switch act {
		case ReLU:
			use.reluGrad(g, y)
		case Sigmoid:
			use.sigmoidGrad(g, y)
		case Tanh:
			use.tanhGrad(g, y)
		}
	}
}

// Exp is dst = e^x within two units in the last place; results below the least normal float32 may be zero.
func Exp(dst, x []float32) {
	for lo, hi := range blocks(len(dst)) {
		use.exp(dst[lo:hi], x[lo:hi])
	}
}

// Softmax is dst = e^x / Σ e^x over one row; dst may be x. It returns log Σ e^x. A row with NaN or +Inf becomes NaN.
func Softmax(dst, x []float32) (logSum float32) {
	if len(x) == 0 {
		return float32(math.Inf(-1))
	}
	top, sum := Max(x), 0.0
	for lo, hi := range blocks(len(x)) {
		sum += float64(use.expSum(dst[lo:hi], x[lo:hi], top))
	}
	Scale(dst[:len(x)], float32(1/sum))
	return top + float32(math.Log(sum))
}

// SoftmaxCrossEntropy turns m rows of n logits, in place, into the gradient of scale·Σ cross entropy with respect to
// them, scale·(softmax − one-hot), and returns Σ cross entropy, unscaled. Targets are the classes, whole numbers in
// [0, n).
func SoftmaxCrossEntropy(logits, targets []float32, m, n int, scale float32) (loss float64) {
	for i := range m {
		row, class := logits[i*n:][:n], int(targets[i])
		z := row[class]
		loss += float64(Softmax(row, row)) - float64(z)
		row[class]--
	}
	Scale(logits[:m*n], scale)
	return loss
}
