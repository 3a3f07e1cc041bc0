/* A stand-in for libnvidia-ml.so.1: the part of NVML's ABI that pynvml, Ray and the meter call.
 *
 * Power is an analytic function of wall time, and the energy counter its exact integral since an epoch, so a test
 * knows every joule. All settings are environment variables, read at each call:
 *   NVML_STANDIN_DEVICES     number of GPUs (default 2)
 *   NVML_STANDIN_SHAPES      comma list, taken in turn by device: square, sawtooth, bursty, constant (default square)
 *   NVML_STANDIN_EPOCH       UNIX s at which the counters were zero (default 0)
 *   NVML_STANDIN_STEP_MS     the counter moves in steps of this length (default 0: continuously)
 *   NVML_STANDIN_WRAP_J      the counter starts from 0 again after this many J (default: never)
 *   NVML_STANDIN_NO_COUNTER  set: TotalEnergyConsumption is NOT_SUPPORTED
 *   NVML_STANDIN_SENSOR_MS   power is read by the driver this often, and the times of it told (default: always, untold)
 *   NVML_STANDIN_AVERAGE_MS  power is the mean over this long (default 0: of the moment)
 *   NVML_STANDIN_NAMES       comma list of names, taken in turn by device
 *   NVML_STANDIN_SLICES      comma list: device 0 is cut into MIG slices of so many sevenths
 *   NVML_STANDIN_LIMITS      least, most and default power limit in W (default 100,700,700); `none`: NOT_SUPPORTED
 *   NVML_STANDIN_CONTROL     a folder; limits are set there, for all processes: `limit-<i>` has a line for each time that
 *                            device i's was set, UNIX s and W, and power stays below it; `fixed-<i>`: setting it needs
 *                            more rights; `lost-<i>` there: device i is lost; `reset-<i>`: its counter fell to 0 at the
 *                            UNIX time that the file holds; `refused-<i>`: reading it needs more rights (1 in the file:
 *                            its counter alone); `down-0`: the driver is gone, and wants nvmlInit once it is back
 * tests/nvml/curves.py states the same curves in Python. Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { MOST = 64, SEVENTHS = 7, KEPT = 20 };
typedef struct { int index, slice; } device_t; /* slice is 0 for a whole GPU, else its number from 1 */
typedef struct { unsigned long long time_us; union { double d; unsigned int ui; unsigned long long ull; } value; } sample_t;
typedef struct {
    unsigned int multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mb;
} attributes_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;

static device_t devices[MOST], slices[SEVENTHS];
static int initialised;

static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text && *text ? atof(text) : otherwise;
}

static double wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int control(const char *what, int index, double *value) {
    const char *folder = getenv("NVML_STANDIN_CONTROL");
    char path[512];
    if (!folder || !*folder) return 0;
    snprintf(path, sizeof path, "%s/%s-%d", folder, what, index);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (value && fscanf(file, "%lf", value) != 1) *value = 0;
    fclose(file);
    return 1;
}

/* The part of a comma list that is device `index`'s turn; returns how many parts there are. */
static int in_turn(const char *name, const char *otherwise, int index, char text[32]) {
    const char *list = getenv(name);
    char copy[512], *parts[MOST], *rest = copy, *part;
    int count = 0;
    snprintf(copy, sizeof copy, "%s", list && *list ? list : otherwise);
    while (count < MOST && (part = strsep(&rest, ",")) != NULL) parts[count++] = part;
    snprintf(text, 32, "%s", parts[index % count]);
    return count;
}

static void shape_of(int index, char shape[32]) { in_turn("NVML_STANDIN_SHAPES", "square", index, shape); }

static int slice_count(void) {
    char text[32];
    const char *list = getenv("NVML_STANDIN_SLICES");
    return list && *list ? in_turn("NVML_STANDIN_SLICES", "", 0, text) : 0;
}

static int up(void) {
    if (control("down", 0, NULL)) initialised = 0;
    return initialised;
}

/* What a reading of this device answers, if not its value. */
static int state_of(const device_t *device, int of_counter) {
    double counter_alone;
    if (!up()) return UNINITIALIZED;
    if (device->slice) return NOT_SUPPORTED;
    if (control("lost", device->index, NULL)) return GPU_IS_LOST;
    if (control("refused", device->index, &counter_alone) && (of_counter || !counter_alone)) return NO_PERMISSION;
    return SUCCESS;
}

/* Joules of the curve under a limit from 0 to `in_s` of its period, watts at that moment. Keep in step with curves.py. */
static void within(const char *shape, double in_s, double limit_w, double *energy_j, double *power_w) {
    if (!strcmp(shape, "square")) {           /* 4 s: 2 s at 400 W, 2 s at 100 W */
        double high_w = fmin(400, limit_w), low_w = fmin(100, limit_w);
        *power_w = in_s < 2 ? high_w : low_w;
        *energy_j = in_s < 2 ? high_w * in_s : 2 * high_w + low_w * (in_s - 2);
    } else if (!strcmp(shape, "sawtooth")) {  /* 5 s: 80 W rising to 380 W */
        double free_s = fmin(in_s, fmax(0, (limit_w - 80) / 60));
        *power_w = fmin(80 + 60 * in_s, limit_w);
        *energy_j = 80 * free_s + 30 * free_s * free_s + (in_s > free_s ? limit_w * (in_s - free_s) : 0);
    } else if (!strcmp(shape, "bursty")) {    /* 10 s: 60 W with 500 W in [0, 0.3), [2, 2.6) and [7, 8.5) */
        const double bursts[3][2] = {{0, 0.3}, {2, 2.6}, {7, 8.5}};
        double high_w = fmin(500, limit_w), low_w = fmin(60, limit_w);
        *power_w = low_w;
        *energy_j = low_w * in_s;
        for (int i = 0; i < 3; i++) {
            *energy_j += (high_w - low_w) * fmax(0, fmin(in_s, bursts[i][1]) - bursts[i][0]);
            if (in_s >= bursts[i][0] && in_s < bursts[i][1]) *power_w = high_w;
        }
    } else {                                  /* constant */
        *power_w = fmin(250, limit_w);
        *energy_j = *power_w * in_s;
    }
}

static double period_s(const char *shape) {
    return !strcmp(shape, "square") ? 4 : !strcmp(shape, "sawtooth") ? 5 : 10;
}

/* Least, most and default power limit in W; 0 where there is none. */
static int limits(double bounds_w[3]) {
    const char *text = getenv("NVML_STANDIN_LIMITS");
    return sscanf(text && *text ? text : "100,700,700", "%lf,%lf,%lf", bounds_w, bounds_w + 1, bounds_w + 2) == 3;
}

static FILE *limits_set(int index, const char *mode) {
    const char *folder = getenv("NVML_STANDIN_CONTROL");
    char path[512];
    if (!folder || !*folder) return NULL;
    snprintf(path, sizeof path, "%s/limit-%d", folder, index);
    return fopen(path, mode);
}

/* The curve's integral under one limit, over so many seconds since its epoch. */
static double curve_j(const char *shape, double since_epoch_s, double limit_w) {
    double whole_j, part_j, power_w, period = period_s(shape);
    within(shape, period, limit_w, &whole_j, &power_w);
    within(shape, fmod(since_epoch_s, period), limit_w, &part_j, &power_w);
    return floor(since_epoch_s / period) * whole_j + part_j;
}

/* Joules since the epoch under the limits that were set meanwhile; the last of them. */
static double energy_j(int index, double since_epoch_s, double *limit_w) {
    char shape[32];
    double bounds_w[3], set_s, set_w, from_s = 0, total_j = 0, epoch_s = number("NVML_STANDIN_EPOCH", 0);
    FILE *file = limits_set(index, "r");
    shape_of(index, shape);
    *limit_w = limits(bounds_w) ? bounds_w[2] : 1e9;
    while (file && fscanf(file, "%lf %lf", &set_s, &set_w) == 2 && set_s - epoch_s <= since_epoch_s) {
        set_s -= epoch_s;
        total_j += curve_j(shape, set_s, *limit_w) - curve_j(shape, from_s, *limit_w);
        from_s = set_s;
        *limit_w = set_w;
    }
    if (file) fclose(file);
    return total_j + curve_j(shape, since_epoch_s, *limit_w) - curve_j(shape, from_s, *limit_w);
}

/* Watts at a moment as the sensor shows them: its last reading, the mean over a window or of the moment. */
static double shown_w(int index, double now_s) {
    char shape[32];
    double joules, watts, limit_w, sensor_s = number("NVML_STANDIN_SENSOR_MS", 0) / 1000;
    double mean_s = number("NVML_STANDIN_AVERAGE_MS", 0) / 1000;
    if (sensor_s > 0) now_s = floor(now_s / sensor_s) * sensor_s;
    now_s -= number("NVML_STANDIN_EPOCH", 0);
    joules = energy_j(index, now_s, &limit_w);
    if (mean_s > 0) return (joules - energy_j(index, now_s - mean_s, &limit_w)) / mean_s;
    shape_of(index, shape);
    within(shape, fmod(now_s, period_s(shape)), limit_w, &joules, &watts);
    return watts;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (control("down", 0, NULL)) return DRIVER_NOT_LOADED;
    initialised = 1;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_SUPPORTED ? "Not Supported"
         : code == NO_PERMISSION ? "Insufficient Permissions" : code == DRIVER_NOT_LOADED ? "Driver Not Loaded"
         : code == UNINITIALIZED ? "Uninitialized" : code == NOT_FOUND ? "Not Found" : "Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned int length) {
    snprintf(text, length, "0.0-standin");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    double devices_n = number("NVML_STANDIN_DEVICES", 2);
    if (!up()) return UNINITIALIZED;
    *count = (unsigned int)fmin(devices_n, MOST);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t **device) {
    unsigned int count;
    if (nvmlDeviceGetCount_v2(&count) != SUCCESS) return UNINITIALIZED;
    if (index >= count) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned int length) {
    if (!up()) return UNINITIALIZED;
    if (device->slice) snprintf(text, length, "MIG-00000000-0000-0000-0000-%012d", device->slice);
    else snprintf(text, length, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **device) {
    unsigned int count;
    char other[96];
    if (nvmlDeviceGetCount_v2(&count) != SUCCESS) return UNINITIALIZED;
    for (int i = 0; i < slice_count(); i++) {
        slices[i] = (device_t){0, i + 1};
        *device = &slices[i];
        nvmlDeviceGetUUID(*device, other, sizeof other);
        if (!strcmp(uuid, other)) return SUCCESS;
    }
    for (unsigned int i = 0; i < count; i++) {
        nvmlDeviceGetHandleByIndex_v2(i, device);
        nvmlDeviceGetUUID(*device, other, sizeof other);
        if (!strcmp(uuid, other)) return control("lost", (int)i, NULL) ? GPU_IS_LOST : SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(device_t *device, char *text, unsigned int length) {
    char name[32];
    in_turn("NVML_STANDIN_NAMES", "NVIDIA A100-STANDIN", device->index, name);
    snprintf(text, length, "%s", name);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(device_t *device, unsigned long long *energy_mj) {
    double now_s = wall_s(), epoch_s = number("NVML_STANDIN_EPOCH", 0), wrap_j = number("NVML_STANDIN_WRAP_J", 0);
    double reset_s, step_s, limit_w;
    const char *no_counter = getenv("NVML_STANDIN_NO_COUNTER");
    int state = state_of(device, 1);
    if (state != SUCCESS) return state;
    if (no_counter && *no_counter) return NOT_SUPPORTED;
    step_s = number("NVML_STANDIN_STEP_MS", 0) / 1000;
    if (step_s > 0) now_s = floor(now_s / step_s) * step_s;
    double energy = energy_j(device->index, now_s - epoch_s, &limit_w);
    if (control("reset", device->index, &reset_s)) energy -= energy_j(device->index, reset_s - epoch_s, &limit_w);
    if (wrap_j > 0) energy = fmod(energy, wrap_j);
    *energy_mj = (unsigned long long)llround(1000 * fmax(0, energy));
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned int *power_mw) {
    int state = state_of(device, 0);
    if (state != SUCCESS) return state;
    *power_mw = (unsigned int)lround(1000 * shown_w(device->index, wall_s()));
    return SUCCESS;
}

static int limits_of(device_t *device, double bounds_w[3]) {
    int state = state_of(device, 0);
    return state != SUCCESS ? state : limits(bounds_w) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerManagementLimit(device_t *device, unsigned int *limit_mw) {
    double bounds_w[3], limit_w;
    int state = limits_of(device, bounds_w);
    if (state != SUCCESS) return state;
    energy_j(device->index, wall_s() - number("NVML_STANDIN_EPOCH", 0), &limit_w);
    *limit_mw = (unsigned int)lround(1000 * limit_w);
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimitConstraints(device_t *device, unsigned int *least_mw, unsigned int *most_mw) {
    double bounds_w[3];
    int state = limits_of(device, bounds_w);
    if (state != SUCCESS) return state;
    *least_mw = (unsigned int)lround(1000 * bounds_w[0]);
    *most_mw = (unsigned int)lround(1000 * bounds_w[1]);
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementDefaultLimit(device_t *device, unsigned int *limit_mw) {
    double bounds_w[3];
    int state = limits_of(device, bounds_w);
    if (state == SUCCESS) *limit_mw = (unsigned int)lround(1000 * bounds_w[2]);
    return state;
}

int nvmlDeviceSetPowerManagementLimit(device_t *device, unsigned int limit_mw) {
    double bounds_w[3];
    int state = limits_of(device, bounds_w);
    FILE *file;
    if (state != SUCCESS) return state;
    if (control("fixed", device->index, NULL)) return NO_PERMISSION;
    if (limit_mw < 1000 * bounds_w[0] || limit_mw > 1000 * bounds_w[1]) return INVALID_ARGUMENT;
    if (!(file = limits_set(device->index, "a"))) return NOT_SUPPORTED;
    fprintf(file, "%.6f %.3f\n", wall_s(), limit_mw / 1000.0);
    fclose(file);
    return SUCCESS;
}

/* The last KEPT readings of the sensor, of type 0 (total power, mW). */
int nvmlDeviceGetSamples(device_t *device, int type, unsigned long long after_us, int *value_type, unsigned int *count,
                         sample_t *samples) {
    double sensor_s = number("NVML_STANDIN_SENSOR_MS", 0) / 1000, last;
    int state = state_of(device, 0);
    if (state != SUCCESS) return state;
    if (type != 0 || sensor_s <= 0) return NOT_SUPPORTED;
    (void)after_us;
    *value_type = 1;
    *count = KEPT;
    last = floor(wall_s() / sensor_s);
    for (int i = 0; samples && i < KEPT; i++) {
        double at_s = (last - KEPT + 1 + i) * sensor_s;
        samples[i].time_us = (unsigned long long)llround(1e6 * at_s);
        samples[i].value.ui = (unsigned int)lround(1000 * shown_w(device->index, at_s));
    }
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    (void)device;
    *memory = (memory_t){80ULL << 30, 79ULL << 30, 1ULL << 30};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t *device, utilization_t *rates) {
    (void)device;
    *rates = (utilization_t){50, 10};
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned int *current, unsigned int *pending) {
    *current = *pending = device->index == 0 && slice_count() > 0;
    return slice_count() > 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned int *count) {
    *count = device->index == 0 && slice_count() > 0 ? SEVENTHS : 0;
    return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t *slice, device_t **device) {
    if (!slice->slice) return INVALID_ARGUMENT;
    return nvmlDeviceGetHandleByIndex_v2((unsigned int)slice->index, device);
}

int nvmlDeviceGetAttributes_v2(device_t *device, attributes_t *attributes) {
    char size[32];
    if (!device->slice) return NOT_SUPPORTED;
    in_turn("NVML_STANDIN_SLICES", "", device->slice - 1, size);
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_slices = attributes->compute_slices = (unsigned int)atoi(size);
    return SUCCESS;
}

/* What CodeCarbon and Zeus ask besides. */
int nvmlDeviceGetArchitecture(device_t *device, unsigned int *architecture) {
    (void)device;
    *architecture = 7; /* Ampere */
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(device_t *device, unsigned int *limit_mw) {
    return nvmlDeviceGetPowerManagementLimit(device, limit_mw);
}

int nvmlDeviceGetTemperature(device_t *device, int sensor, unsigned int *celsius) {
    (void)device, (void)sensor;
    *celsius = 50;
    return SUCCESS;
}

int nvmlDeviceGetComputeMode(device_t *device, int *mode) {
    (void)device;
    *mode = 0;
    return SUCCESS;
}

typedef struct {
    unsigned int field, scope;
    long long time_us, latency_us;
    int value_type, code;
    union { double d; unsigned int ui; unsigned long long ull; } value;
} field_t;

/* 83: the counter in mJ; 185 and 186: power in mW, mean and of the moment; of the GPU alone. */
int nvmlDeviceGetFieldValues(device_t *device, int count, field_t *fields) {
    for (int i = 0; i < count; i++) {
        unsigned int field = fields[i].field;
        fields[i].time_us = (long long)(1e6 * wall_s());
        fields[i].value_type = field == 83 ? 3 : 1;
        fields[i].code = fields[i].scope != 0 ? NOT_SUPPORTED
                       : field == 83 ? nvmlDeviceGetTotalEnergyConsumption(device, &fields[i].value.ull)
                       : field == 185 || field == 186 ? nvmlDeviceGetPowerUsage(device, &fields[i].value.ui)
                       : NOT_SUPPORTED;
    }
    return SUCCESS;
}

int nvmlDeviceGetPersistenceMode(device_t *device, int *mode) {
    (void)device;
    *mode = 1;
    return SUCCESS;
}
