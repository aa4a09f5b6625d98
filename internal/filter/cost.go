package filter

import (
	"time"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"github.com/eventhose/eventhose"
)

// CEL can limit what an evaluation costs, and we do not use that. Its accounting knows a call's price by its type-checked
// overload, and data is dyn, so comparing two megabytes or searching a long list counts as one step; and it keeps
// the operands of all rounds of a loop on one stack that it searches, so its own time grows with the square of the
// rounds (cel-go 0.32.0). Instead each step of the plan is wrapped here. A step charges one unit when it has run, and
// where its value goes into a call that walks through it, as much as there is to walk.

const (
	// maxCost is what one evaluation may spend. A unit takes some 0.1 µs.
	maxCost = 250_000
	// maxTime ends an evaluation whose units take far longer than they should. It is looked at every checkEvery units.
	maxTime    = 5 * time.Second
	checkEvery = 1_000

	// zoneCost is the price of loading a time zone.
	zoneCost = 200
)

// evaluation is one run of one expression over one event.
type evaluation struct {
	*View
	spent, check uint64
	deadline     time.Time
}

// itself is the name under which a step finds the evaluation; it cannot be written in CEL.
const itself = "@evaluation"

func (e *evaluation) ResolveName(name string) (any, bool) {
	if name == itself {
		return e, true
	}
	return e.View.ResolveName(name)
}

// spend ends the evaluation, in the way CEL provides for it (Eval recovers it), once there is nothing left.
func (e *evaluation) spend(units uint64) {
	e.spent += units
	if e.spent > maxCost {
		//nolint:forbidigo // CEL has no other way to end an evaluation
		panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "the cost limit was passed"})
	}
	if e.spent < e.check {
		return
	}
	e.check = e.spent + checkEvery
	switch now := time.Now(); {
	case e.deadline.IsZero():
		e.deadline = now.Add(maxTime)
	case now.After(e.deadline):
		//nolint:forbidigo // as above
		panic(interpreter.EvalCancelledError{Cause: interpreter.ContextCancelled, Message: "the time limit was passed"})
	}
}

// meter charges for one step of the plan.
type meter struct {
	base uint64
	// walked answers what it costs to walk through the step's value; nil if nobody does.
	walked func(ref.Val) uint64
}

func (m *meter) setWalked(f func(ref.Val) uint64) { m.walked = f }

func (m *meter) pay(frame *interpreter.ExecutionFrame, v ref.Val) ref.Val {
	found, _ := frame.ResolveName(itself)
	e, ok := found.(*evaluation)
	if !ok { // a constant part, evaluated while planning
		return v
	}
	units := m.base
	if m.walked != nil {
		units += m.walked(v)
	}
	e.spend(units)
	return v
}

// The planner looks for these interfaces, so a wrapped step keeps the one it had.
type (
	chargedStep struct {
		interpreter.InterpretableV2
		meter
	}
	chargedCall struct {
		interpreter.InterpretableCall
		meter
	}
	chargedAttribute struct {
		interpreter.InterpretableAttribute
		meter
	}
)

func (c *chargedStep) Exec(f *interpreter.ExecutionFrame) ref.Val {
	return c.pay(f, c.InterpretableV2.Exec(f))
}
func (c *chargedCall) Exec(f *interpreter.ExecutionFrame) ref.Val {
	return c.pay(f, c.InterpretableCall.Exec(f))
}
func (c *chargedAttribute) Exec(f *interpreter.ExecutionFrame) ref.Val {
	return c.pay(f, c.InterpretableAttribute.Exec(f))
}

// charge wraps the steps of a plan, innermost first. Constants cost nothing and stay as they are, so that CEL's
// optimizer still sees them.
func charge(step interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	switch step := step.(type) {
	case *chargedStep, *chargedCall, *chargedAttribute, interpreter.InterpretableConst:
		return step, nil
	case interpreter.InterpretableAttribute:
		return &chargedAttribute{step, meter{base: 1}}, nil
	case interpreter.InterpretableCall:
		chargeArguments(step)
		c := &chargedCall{step, meter{base: 1}}
		if len(step.Args()) > 1 && readsClock[step.Function()] {
			c.base = zoneCost
		}
		return c, nil
	case interpreter.InterpretableConstructor:
		for _, v := range step.InitVals() {
			if _, constant := v.(interpreter.InterpretableConst); !constant {
				return &chargedStep{step, meter{base: 1}}, nil
			}
		}
		return step, nil
	}
	return &chargedStep{step, meter{base: 1}}, nil
}

// chargeArguments lets the arguments of a call pay for being walked through.
func chargeArguments(call interpreter.InterpretableCall) {
	args := call.Args()
	walk := func(i int, f func(ref.Val) uint64) {
		if a, ok := args[i].(interface{ setWalked(func(ref.Val) uint64) }); ok {
			a.setWalked(f)
		}
	}
	switch call.Function() {
	case operators.Equals, operators.NotEquals:
		limit := uint64(maxCost) + 1
		for _, a := range args { // comparing ends where the smaller one does
			if c, ok := a.(interpreter.InterpretableConst); ok {
				limit = weight(c.Value(), limit)
			}
		}
		for i := range args {
			walk(i, func(v ref.Val) uint64 { return weight(v, limit) })
		}
	case operators.In, operators.OldIn:
		walk(1, func(v ref.Val) uint64 {
			if _, isMap := v.(traits.Mapper); isMap {
				return 1
			}
			return weight(v, maxCost+1)
		})
	case overloads.Matches:
		factor := uint64(1)
		if c, ok := args[1].(interpreter.InterpretableConst); ok {
			if pattern, ok := c.Value().(types.String); ok {
				factor += uint64(instructions(string(pattern)) / 2)
			}
		}
		walk(0, func(v ref.Val) uint64 { return factor * textWeight(v) })
	default:
		for i := range args {
			walk(i, textWeight)
		}
	}
}

var readsClock = map[string]bool{
	overloads.TimeGetFullYear: true, overloads.TimeGetMonth: true, overloads.TimeGetDayOfYear: true,
	overloads.TimeGetDate: true, overloads.TimeGetDayOfMonth: true, overloads.TimeGetDayOfWeek: true,
	overloads.TimeGetHours: true, overloads.TimeGetMinutes: true, overloads.TimeGetSeconds: true,
	overloads.TimeGetMilliseconds: true,
}

// textWeight is a unit for ten bytes.
func textWeight(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v) / 10)
	case types.Bytes:
		return uint64(len(v) / 10)
	}
	return 0
}

// weight counts the values in v and adds their texts. It stops counting near limit.
func weight(v ref.Val, limit uint64) uint64 {
	n := 1 + textWeight(v)
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); n < limit && it.HasNext() == types.True; {
			k := it.Next()
			n += textWeight(k) + weight(v.Get(k), limit-n)
		}
	case traits.Lister:
		for it := v.Iterator(); n < limit && it.HasNext() == types.True; {
			n += weight(it.Next(), limit-n)
		}
	}
	return n
}

const (
	// maxEstimate is the greatest cost that an expression may reach with typical data: two loops in each other, not three.
	maxEstimate = 1_000_000
	// typicalItems and typicalText are the sizes that the estimate assumes of data.
	typicalItems = 100
	typicalText  = 1_000
)

// estimator tells CEL's static cost estimate how large things are.
type estimator struct{}

func (estimator) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	size := checker.SizeEstimate{Max: typicalText}
	switch path := node.Path(); {
	case len(path) == 1 && path[0] == "type":
		size.Max = eventhose.MaxType
	case len(path) == 1 && path[0] == "key":
		size.Max = eventhose.MaxKey
	case node.Type().Kind() != types.StringKind:
		size.Max = typicalItems
	}
	return &size
}

func (estimator) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
