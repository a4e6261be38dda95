package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/internal/seeds"
	"choir.example/model"
)

const maxEpochs = 1_000_000

// trainCommand is `choir train`.
type trainCommand struct {
	outputFlag
	Data      string  `help:"What to learn from: shoppers, which is built in; fashion-mnist, banking77, tinyshakespeare or online-retail, whose files are in --from; or a file of rows with --schema." placeholder:"NAME|FILE" required:""`
	From      string  `help:"Directory with the files of a public data set." placeholder:"DIR" type:"path"`
	Schema    string  `help:"What the columns of a file of rows mean, YAML or JSON." placeholder:"FILE" type:"path"`
	Format    string  `help:"How a file of rows is written: csv, jsonl or text. Without it jsonl for a name that ends in .jsonl or .jsonl.gz, else csv." enum:"csv,jsonl,text," default:""`
	Model     string  `help:"Architecture: a name, or a YAML file, as choir model describe takes them." placeholder:"NAME|FILE" required:""`
	Epochs    int     `help:"Passes over the examples." default:"10"`
	Batch     int     `help:"Examples a step." default:"32"`
	Rate      float64 `help:"Learning rate." default:"0.1"`
	Optimiser string  `help:"What makes a step of a gradient: ${enum}." enum:"gd,sgd,momentum,nesterov,rmsprop,adam,adamw,adagrad" default:"sgd"`
	scheduleFlags
	Decay  float64 `help:"Weight decay." default:"0"`
	Clip   float64 `help:"Norm to which a step's gradient is scaled down. 0: none." default:"0"`
	Seed   uint64  `help:"Of all that is chance: how examples are divided and ordered, and what parameters begin with." default:"1"`
	Length int     `help:"Of one example: characters of tinyshakespeare (64), n-grams of banking77 (192), items before the next of online-retail (20)." placeholder:"N"`
	Out    string  `help:"Write the model to this safetensors file." placeholder:"FILE" type:"path"`
	Force  bool    `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (trainCommand) Help() string {
	return `Trains in one place, without a federation: the baseline that a federation is held against. One core learns; the same seed
gives the same model on one kind of processor. A training of more than two seconds says after each epoch how
the validation part is answered; the test part is measured once, at the end: neither is learnt from. Parts: a tenth of what is published to learn from validates, and the published test part
tests; of rows 70, 10 and 20 of a hundred; of tinyshakespeare the last tenth validates; of online-retail each customer's last
product tests and the one before validates. The files are the published ones.

Examples made of ids have names of their own: banking77 text; tinyshakespeare rnn and lstm, whose log_loss is in nats a
character; online-retail recommend-mlp, which tells what a customer has from what was drawn, recommend-lstm, which says
what comes after steps of customer and product, and matrix-factorisation, which ranks what a customer has above what was
drawn. What is drawn is drawn anew for each epoch. hr@10 and ndcg@10 rank all products that the customer does not have. A file
of layers does as well: input [2] with loss logistic, [steps, 2] with softmax, [1 + products] with bpr or sampled-softmax, as
the three, and [steps] for products alone.

A model of rows with one output is written with its schema and statistics. Any other file holds the architecture and the
parameters. choir model export makes ONNX of either, or rounds its weights to int8. A training whose numbers stop being finite
writes nothing.

Schedules: step multiplies the rate by --step-factor after every --step-epochs epochs; cosine lowers it along half a wave, to
nearly 0 in the last step. --warmup goes with each: over so many steps the rate rises evenly to what it would be.

Example: choir train --data shoppers --model mlp --epochs 20 --schedule cosine --out shoppers.safetensors`
}

// trained is what a central training came to.
type trained struct {
	Data       string         `json:"data"`
	Model      string         `json:"model"`
	Examples   int            `json:"examples"` // that were learnt from
	Parameters int            `json:"parameters"`
	Optimiser  string         `json:"optimiser"`
	Rate       float64        `json:"rate"`
	Batch      int            `json:"batch"`
	Epochs     int            `json:"epochs"`
	Steps      int            `json:"steps"`
	Loss       float64        `json:"loss"` // mean over the last epoch
	Seconds    float64        `json:"seconds"`
	Seed       uint64         `json:"seed"`
	Schedule   model.Schedule `json:"schedule"`
	Decay      float64        `json:"decay"`
	Clip       float64        `json:"clip"`
	Validation measured       `json:"validation"`
	Test       measured       `json:"test,omitempty"`
	File       string         `json:"file,omitempty"`
}

// Run trains.
func (c *trainCommand) Run(ctx context.Context, t *terminal) error {
	if err := c.check(); err != nil {
		return err
	}
	set, err := c.load()
	if err != nil {
		return err
	}
	network, err := c.network(set)
	if err != nil {
		return err
	}
	if err := c.checkSteps(c.Epochs * c.steps(set)); err != nil {
		return err
	}
	params := network.Initial(c.Seed)
	done, err := c.train(ctx, t.err, network, params, set)
	if err != nil {
		return err
	}
	if c.Out != "" {
		body, err := set.encode(network, params)
		if err == nil {
			err = writeNew(c.Out, body, c.Force)
		}
		if err != nil {
			return err
		}
		done.File = c.Out
	}
	return c.report(t.out, done)
}

// steps are those of an epoch.
func (c *trainCommand) steps(set *trainSet) int {
	if c.Optimiser == "gd" {
		return 1 // with the gradient of all examples
	}
	return (set.train.Len() + c.Batch - 1) / c.Batch
}

// check refuses wrong usage before anything is read, and a file that could not be written after hours of training.
func (c *trainCommand) check() error {
	switch {
	case c.Epochs < 1 || c.Epochs > maxEpochs:
		return &usageError{fmt.Sprintf("--epochs is %d, want 1 to %d", c.Epochs, maxEpochs), ""}
	case c.Batch < 1 || c.Batch > 1<<16:
		return &usageError{fmt.Sprintf("--batch is %d, want 1 to 65536", c.Batch), ""}
	case !(c.Rate > 0 && c.Rate <= 1000):
		return &usageError{fmt.Sprintf("--rate is %v, want more than 0 and at most 1000", c.Rate), ""}
	case !(c.Decay >= 0 && c.Decay < 1):
		return &usageError{fmt.Sprintf("--decay is %v, want at least 0 and below 1", c.Decay), ""}
	case !(c.Clip >= 0 && c.Clip <= 1e9):
		return &usageError{fmt.Sprintf("--clip is %v, want 0 to 1e9", c.Clip), ""}
	case c.Length < 0 || c.Length > 4096:
		return &usageError{fmt.Sprintf("--length is %d, want 1 to 4096", c.Length), ""}
	}
	if err := c.scheduleFlags.check(); err != nil || c.Out == "" {
		return err
	}
	if _, err := os.Lstat(c.Out); err == nil && !c.Force {
		return &hinted{fmt.Errorf("%s exists already", c.Out), "add --force to write over it, or name another file"}
	}
	if info, err := os.Stat(filepath.Dir(c.Out)); err != nil || !info.IsDir() {
		return &hinted{fmt.Errorf("--out: %s is no directory", filepath.Dir(c.Out)), "name a file in a directory that you may write to"}
	}
	return nil
}

// train changes params, and tells talk of each epoch.
func (c *trainCommand) train(ctx context.Context, talk io.Writer, network *model.Network, params []float32, set *trainSet) (*trained, error) {
	trainer, err := model.NewTrainer(network, c.Batch)
	if err != nil {
		return nil, err
	}
	predictor, start := set.predictor(network, params), time.Now()
	f := &follower{set: set, talk: talk, predictor: predictor, epoch: c.steps(set), epochs: c.Epochs, start: start}
	learnt, err := trainer.Train(ctx, params, set.train.X, set.train.Y, model.TrainConfig{
		Epochs: c.Epochs, Rate: c.Rate, Seed: seeds.Derive("choir/train/v1", c.Seed, "central", 0), Pause: f.step, Redraw: set.redraw, Clip: c.Clip,
		Optimiser: model.Optimiser{Kind: c.Optimiser, Decay: c.Decay}, Schedule: c.schedule(),
	})
	f.finish()
	switch {
	case errors.Is(err, context.Canceled):
		return nil, errors.New("interrupted; nothing was written")
	case errors.Is(err, model.ErrDiverged):
		return nil, &hinted{err, "nothing was written; try a lower --rate"}
	case err != nil:
		return nil, err
	}
	done := &trained{
		Data: c.Data, Model: c.Model, Examples: set.train.Len(), Parameters: network.Size(),
		Optimiser: c.Optimiser, Rate: c.Rate, Batch: c.Batch, Epochs: c.Epochs,
		Steps: learnt.Steps, Loss: learnt.Loss, Seconds: time.Since(start).Seconds(), Seed: c.Seed,
		Schedule: c.schedule(), Decay: c.Decay, Clip: c.Clip,
	}
	if done.Validation, err = set.measure(predictor, &set.validation); err != nil {
		return nil, fmt.Errorf("measure the validation part: %w", err)
	}
	if set.test.Len() > 0 {
		if done.Test, err = set.measure(predictor, &set.test); err != nil {
			return nil, fmt.Errorf("measure the test part: %w", err)
		}
	}
	return done, nil
}

// report prints what came of it.
func (c *trainCommand) report(out io.Writer, done *trained) error {
	if c.json() {
		return printJSON(out, done)
	}
	fmt.Fprintf(out, "%s on %s: %d examples, %d parameters, %d epochs in %.1f s, seed %d, loss %.4f\n",
		done.Model, done.Data, done.Examples, done.Parameters, done.Epochs, done.Seconds, done.Seed, done.Loss)
	tab := newTable("METRIC", "VALIDATION", "TEST")
	for _, m := range done.Validation {
		test := ""
		if i := slices.IndexFunc(done.Test, func(o metric) bool { return o.name == m.name }); i >= 0 {
			test = fmt.Sprintf("%.4f", done.Test[i].value)
		}
		tab.add(m.name, fmt.Sprintf("%.4f", m.value), test)
	}
	if err := tab.print(out, "nothing was measured"); err != nil || done.File == "" {
		return err
	}
	_, err := fmt.Fprintf(out, "written to %s\n", done.File)
	return err
}
