// Changed block tracking, which govmomi's simulator does not have: a copy of each disk is kept at each snapshot
// of a machine that has it on, and what changed between two of them is found by comparing.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	grain = 64 << 10
	// A real one bounds what one answer tells, too; a small number lets every test ask again and again.
	areasAtOnce = 3
)

type additions struct {
	state    string
	lock     sync.Mutex
	epochs   map[string]int
	count    int
	tracker  *tracker
	refusing *refusing
}

func newAdditions(state string, known *simulator.Registry) *additions {
	made := &additions{state: state, epochs: map[string]int{}}
	made.tracker, made.refusing = &tracker{additions: made}, &refusing{}
	made.tracker.Self = types.ManagedObjectReference{Type: "Tracker", Value: "tracker"}
	made.refusing.Self = types.ManagedObjectReference{Type: "Refusing", Value: "refusing"}
	known.Put(made.tracker)
	known.Put(made.refusing)
	return made
}

// mark gives each disk of a machine a new changeId, before a snapshot keeps it.
func (a *additions) mark(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	if vm.Config.ChangeTrackingEnabled == nil || !*vm.Config.ChangeTrackingEnabled {
		return nil
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	a.count++
	var devices []types.BaseVirtualDevice
	for _, device := range vm.Config.Hardware.Device {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			devices = append(devices, device)
			continue
		}
		backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok {
			devices = append(devices, device)
			continue
		}
		name := fmt.Sprintf("%s-%d", vm.Self.Value, disk.Key)
		if wants(a.state, "reset") {
			a.epochs[name]++
		}
		newDisk, newBacking := *disk, *backing
		id := fmt.Sprintf("52 aa %02x %s/%d", a.epochs[name], strings.ReplaceAll(name, "-", " "), a.count)
		newBacking.ChangeId = id
		newDisk.Backing = &newBacking
		devices = append(devices, &newDisk)
		if err := a.keep(id, a.flat(ctx, vm, backing)); err != nil && !os.IsNotExist(err) {
			return &types.FileFault{File: err.Error()}
		}
	}
	_ = os.Remove(filepath.Join(a.state, "reset"))
	vm.Config.Hardware.Device = devices
	return nil
}

func (a *additions) flat(ctx *simulator.Context, vm *simulator.VirtualMachine, backing *types.VirtualDiskFlatVer2BackingInfo) string {
	var path object.DatastorePath
	path.FromString(backing.FileName)
	for _, one := range vm.Datastore {
		store := ctx.Map.Get(one).(*simulator.Datastore)
		if store.Name == path.Datastore {
			return filepath.Join(store.Summary.Url, strings.TrimSuffix(path.Path, ".vmdk")+"-flat.vmdk")
		}
	}
	return ""
}

func (a *additions) kept(id string) string {
	return filepath.Join(a.state, "kept-"+strings.NewReplacer(" ", "_", "/", "-").Replace(id))
}

func (a *additions) keep(id string, flat string) error {
	from, err := os.Open(flat)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(a.kept(id))
	if err != nil {
		return err
	}
	defer to.Close()
	_, err = io.Copy(to, from)
	return err
}

type tracker struct {
	mo.SearchIndex
	additions *additions
}

// QueryChangedDiskAreas tells what changed on a disk between a changeId and a snapshot.
func (t *tracker) QueryChangedDiskAreas(ctx *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	disk := t.disk(ctx, req)
	if disk == nil || wants(t.additions.state, "file-fault") {
		body.Fault_ = simulator.Fault("Error caused by file", &types.FileFault{File: "[LocalDS_0] it"})
		return body
	}
	now, err := os.ReadFile(t.additions.kept(disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).ChangeId))
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), &types.FileFault{File: "[LocalDS_0] it"})
		return body
	}
	then := make([]byte, len(now))
	if req.ChangeId != "*" {
		if then, err = os.ReadFile(t.additions.kept(req.ChangeId)); err != nil || len(then) != len(now) {
			body.Fault_ = simulator.Fault("A specified parameter was not correct: changeId",
				&types.InvalidArgument{InvalidProperty: "changeId"})
			return body
		}
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: areas(then, now, req.StartOffset)}
	return body
}

func (t *tracker) disk(ctx *simulator.Context, req *types.QueryChangedDiskAreas) *types.VirtualDisk {
	if req.Snapshot == nil {
		return nil
	}
	snapshot, ok := ctx.Map.Get(*req.Snapshot).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return nil
	}
	for _, device := range snapshot.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok && disk.Key == req.DeviceKey {
			return disk
		}
	}
	return nil
}

func areas(then, now []byte, start int64) types.DiskChangeInfo {
	end := int64(len(now))
	found := types.DiskChangeInfo{StartOffset: start, Length: end - start}
	for at := start; at < end; at += grain {
		to := min(at+grain, end)
		if bytes.Equal(then[at:to], now[at:to]) {
			continue
		}
		if last := len(found.ChangedArea) - 1; last >= 0 {
			if area := &found.ChangedArea[last]; area.Start+area.Length == at {
				area.Length += to - at
				continue
			}
		}
		if len(found.ChangedArea) == areasAtOnce {
			found.Length = at - start
			break
		}
		found.ChangedArea = append(found.ChangedArea, types.DiskChangeExtent{Start: at, Length: to - at})
	}
	return found
}
