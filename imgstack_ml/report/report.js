"use strict";
// Answers the reader of a report: the image of a score, sums of components, names of a group of images.
// The page is complete without this script. It shows what needs it (class "live") when it has read its data.
(() => {
  const find = (id) => document.getElementById(id);
  const source = find("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);

  // ---- Numbers, as live.py packs them ----

  function bytesOf(text) {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
    return bytes;
  }

  const integersOf = (text, Kind) => new Kind(bytesOf(text).buffer);

  /** Rows of integers, each with the scale that makes them numbers. */
  function rowsOf(packed) {
    const all = integersOf(packed.data, Int16Array);
    const length = all.length / packed.scales.length;
    return packed.scales.map((scale, i) => ({ scale, integers: all.subarray(i * length, (i + 1) * length) }));
  }

  const numbersOf = ({ scale, integers }) => Float64Array.from(integers, (value) => value * scale);

  function namesOf({ shared, rests }) {
    let before = "";
    return rests.map((rest, i) => (before = before.slice(0, shared[i]) + rest));
  }

  // ---- Pictures: sums of components, and thumbnails ----

  const basis = data.basis && {
    shape: data.basis.shape,
    panels: data.basis.panels.map((channels, i) => ({ channels, limits: data.basis.limits[i] })),
    mean: numbersOf(rowsOf(data.basis.mean)[0]),
    components: rowsOf(data.basis.components),
    hidden: data.basis.hidden && bytesOf(data.basis.hidden),
  };

  /** The mean plus the first components, each times its weight. */
  function sumOf(weights) {
    const sum = basis.mean.slice();
    weights.forEach((weight, j) => {
      const { scale, integers } = basis.components[j];
      const factor = weight * scale;
      if (factor) for (let i = 0; i < sum.length; i++) sum[i] += factor * integers[i];
    });
    return sum;
  }

  function resize(canvas, width, height) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    return canvas.getContext("2d");
  }

  /**
   * Draw panels of values side by side: one channel as grey, or three as colours, from black to white between the
   * limits of the panel. Pixels outside a mask are transparent.
   */
  function paint(canvas, values, panels) {
    const [height, width, depth] = basis.shape;
    const context = resize(canvas, width * panels.length, height);
    const image = context.createImageData(width, height);
    panels.forEach(({ channels, limits: [low, high] }, number) => {
      const gain = 255 / (high - low || 1);
      for (let i = 0; i < width * height; i++) {
        for (let c = 0; c < 3; c++) {
          image.data[4 * i + c] = (values[i * depth + channels[c % channels.length]] - low) * gain;
        }
        image.data[4 * i + 3] = basis.hidden && basis.hidden[i] ? 0 : 255;
      }
      context.putImageData(image, number * width, 0);
    });
  }

  const sheet = data.sheet && { ...data.sheet, image: new Image(), cellOf: new Map() };
  if (sheet) {
    integersOf(sheet.at, Uint16Array).forEach((dot, cell) => sheet.cellOf.set(dot, cell));
    sheet.image.src = sheet.uri;
  }

  /** Draw the thumbnail in a cell of the sheet. */
  function paintThumbnail(canvas, cell) {
    const [height, width] = sheet.size;
    const context = resize(canvas, width, height);
    const x = (cell % sheet.columns) * sheet.cell[1];
    const y = Math.floor(cell / sheet.columns) * sheet.cell[0];
    context.globalCompositeOperation = "copy";
    context.drawImage(sheet.image, x, y, width, height, 0, 0, width, height);
    if (basis && basis.hidden) {
      const mask = document.createElement("canvas");
      paint(mask, basis.mean, basis.panels);
      context.globalCompositeOperation = "destination-in";
      context.drawImage(mask, 0, 0, width, height);
    }
  }

  // ---- The mean plus components, by sliders ----

  function slider(title, min, max, step, value, onInput) {
    const input = Object.assign(document.createElement("input"), { type: "range", min, max, step, value });
    const output = document.createElement("output");
    const label = document.createElement("label");
    label.append(Object.assign(document.createElement("span"), { textContent: title }), input, output);
    const update = () => (output.textContent = onInput(Number(input.value)));
    input.addEventListener("input", update);
    update();
    return { label, input, update };
  }

  function startMixer() {
    const weights = data.sigma.map(() => 0);
    const draw = () => paint(find("sum"), sumOf(weights), basis.panels);
    const sliders = data.titles.map((title, j) =>
      slider(title, -3, 3, 0.1, 0, (deviations) => {
        weights[j] = deviations * data.sigma[j];
        return `${deviations > 0 ? "+" : deviations < 0 ? "−" : ""}${Math.abs(deviations).toFixed(1)} σ`;
      }),
    );
    for (const { label, input } of sliders) {
      input.addEventListener("input", draw);
      find("sliders").append(label);
    }
    find("mean").addEventListener("click", () => {
      for (const { input, update } of sliders) {
        input.value = 0;
        update();
      }
      draw();
    });
    draw();
    find("mixer").classList.toggle("channels", basis.panels.length > 1);
    find("mixer").hidden = false;
  }

  // ---- Reconstructions from fewer components ----

  function startReconstructions() {
    const known = data.titles.length;
    const last = known < data.n_components ? known + 1 : known; // the last step is that of all components
    document.querySelectorAll(".triple").forEach((triple, i) => {
      const { scores, panel, limits } = data.rows[i];
      const panels = [{ channels: basis.panels[panel].channels, limits }];
      const figure = triple.children[1];
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", figure.querySelector("img").alt);
      figure.prepend(canvas);
      const { label } = slider("k", 0, last, 1, last, (k) => {
        figure.classList.toggle("swapped", k < last);
        if (k < last) paint(canvas, sumOf(scores.slice(0, k)), panels);
        return `${k < last ? k : data.n_components} of ${data.n_components} components`;
      });
      label.className = "live k";
      triple.append(label);
    });
  }

  // ---- Scores ----

  const ORDER = -1; // as an axis, in place of the number of a component
  const SHAPES = ["●", "■", "▲"];
  const N_COLOURS = 8;
  const N_STYLES = N_COLOURS * SHAPES.length; // labels beyond this number are grey circles
  const MARGIN = { left: 62, right: 12, top: 10, bottom: 44 };
  const MANY = 2000; // dots are small squares beyond this number
  const NAMES_SHOWN = 500; // a longer list would make the page slow

  function startExplorer() {
    const plot = data.plot;
    const positions = integersOf(plot.positions, Uint32Array);
    const n = positions.length;
    const scores = rowsOf(plot.scores);
    const names = namesOf(plot.names);
    const labelOf = plot.label_of && integersOf(plot.label_of, Uint16Array);
    const groups = Array.from({ length: labelOf ? Math.min(plot.labels.length, N_STYLES + 1) : 1 }, () => []);
    for (let i = 0; i < n; i++) groups[labelOf ? Math.min(labelOf[i], N_STYLES) : 0].push(i);
    const columns = new Map(); // numbers along an axis
    const colours = new Map(); // of the light or dark style
    const dots = find("dots");
    const marks = find("marks");
    const x = new Float32Array(n); // places on the screen
    const y = new Float32Array(n);
    const chosen = new Uint8Array(n);
    let size = { width: 0, height: 0, ratio: 1 };
    let focus = -1; // the dot whose image is shown
    let shade = -1; // the label that stands out
    let lasso = null; // points of the line being drawn

    const axis = (id) => Number(find(id).value);
    const title = (number) => (number === ORDER ? "order of the images" : data.titles[number]);

    function columnOf(number) {
      if (!columns.has(number)) {
        columns.set(number, number === ORDER ? Float64Array.from(positions) : numbersOf(scores[number]));
      }
      return columns.get(number);
    }

    /** Ends of an axis, and its ticks at multiples of 1, 2 or 5. */
    function scaleOf(column, pixels) {
      let low = Infinity;
      let high = -Infinity;
      for (const value of column) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const margin = 0.05 * (high - low || Math.abs(high) || 1);
      low -= margin;
      high += margin;
      const rough = ((high - low) * 70) / pixels;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
      const ticks = [];
      for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
      return { low, high, ticks };
    }

    function numberText(value, nDigits) {
      const size = Math.abs(value);
      const isPlain = !value || (size >= 1e-4 && size < 1e6);
      const text = isPlain ? String(Number(value.toPrecision(nDigits))) : value.toExponential(2);
      return text.replace(/-/g, "−");
    }

    const styleOf = (number) => (number < N_STYLES ? Math.floor(number / N_COLOURS) : 0);
    const isFaint = (i) => shade >= 0 && labelOf[i] !== shade;

    /** A colour of the style sheet; asked for once, since the answer can take as long as a drawing. */
    function colour(name) {
      if (!colours.has(name)) {
        colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
      }
      return colours.get(name);
    }

    function draw() {
      const { width, height, ratio } = size;
      if (!width) return;
      const context = resize(dots, Math.round(width * ratio), Math.round(height * ratio));
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const scales = placeDots();
      const paintDots = n > MANY ? squaresOn(context) : pathsOn(context);
      const colourOf = (number) => colour(number < N_STYLES ? `--c${number % N_COLOURS}` : "--grey");
      for (const opacity of [0.15, 0.8]) {
        const isDrawn = (i) => isFaint(i) === opacity < 0.5 && !chosen[i];
        groups.forEach((group, number) => paintDots(group.filter(isDrawn), styleOf(number), colourOf(number), opacity));
      }
      const isChosen = (i) => chosen[i];
      groups.forEach((group, number) => paintDots(group.filter(isChosen), styleOf(number), colour("--ink"), 1));
      paintDots.end();
      context.globalCompositeOperation = "destination-over";
      if (axis("across") === ORDER && !labelOf) {
        context.beginPath();
        for (let i = 0; i < n; i++) context.lineTo(x[i], y[i]);
        context.strokeStyle = colour("--soft");
        context.lineWidth = 0.5;
        context.stroke();
      }
      drawAxes(context, scales);
      context.globalCompositeOperation = "source-over";
      drawMarks();
    }

    /** Compute the places of all dots, and return the scales of the axes. */
    function placeDots() {
      const right = size.width - MARGIN.right;
      const bottom = size.height - MARGIN.bottom;
      const across = columnOf(axis("across"));
      const up = columnOf(axis("up"));
      const scaleX = scaleOf(across, right - MARGIN.left);
      const scaleY = scaleOf(up, bottom - MARGIN.top);
      const gainX = (right - MARGIN.left) / (scaleX.high - scaleX.low);
      const gainY = (bottom - MARGIN.top) / (scaleY.high - scaleY.low);
      for (let i = 0; i < n; i++) {
        x[i] = MARGIN.left + (across[i] - scaleX.low) * gainX;
        y[i] = bottom - (up[i] - scaleY.low) * gainY;
      }
      const placesX = scaleX.ticks.map((tick) => [tick, MARGIN.left + (tick - scaleX.low) * gainX]);
      const placesY = scaleY.ticks.map((tick) => [tick, bottom - (tick - scaleY.low) * gainY]);
      return { right, bottom, placesX, placesY };
    }

    function drawAxes(context, { right, bottom, placesX, placesY }) {
      context.font = "12px system-ui, sans-serif";
      context.lineWidth = 1;
      context.textAlign = "center";
      for (const [tick, place] of placesX) {
        drawLine(context, colour(tick ? "--line" : "--grey"), place, MARGIN.top, place, bottom);
        context.fillStyle = colour("--soft");
        context.fillText(numberText(tick, 6), place, bottom + 16);
      }
      context.textAlign = "right";
      for (const [tick, place] of placesY) {
        drawLine(context, colour(tick ? "--line" : "--grey"), MARGIN.left, place, right, place);
        context.fillStyle = colour("--soft");
        context.fillText(numberText(tick, 6), MARGIN.left - 6, place + 4);
      }
      context.fillStyle = colour("--ink");
      context.textAlign = "center";
      context.fillText(title(axis("across")), (MARGIN.left + right) / 2, size.height - 8);
      context.save();
      context.translate(12, (MARGIN.top + bottom) / 2);
      context.rotate(-Math.PI / 2);
      context.fillText(title(axis("up")), 0, 0);
      context.restore();
    }

    function drawLine(context, colour, x0, y0, x1, y1) {
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
    }

    /** Paint dots as circles (0), squares (1) or triangles (2). */
    function pathsOn(context) {
      const r = n > 500 ? 3 : 4.5;
      const paintDots = (some, shape, colour, opacity) => {
        context.beginPath();
        for (const i of some) {
          if (shape === 0) {
            context.moveTo(x[i] + r, y[i]);
            context.arc(x[i], y[i], r, 0, 2 * Math.PI);
          } else if (shape === 1) context.rect(x[i] - 0.9 * r, y[i] - 0.9 * r, 1.8 * r, 1.8 * r);
          else {
            context.moveTo(x[i], y[i] - 1.1 * r);
            context.lineTo(x[i] + r, y[i] + 0.8 * r);
            context.lineTo(x[i] - r, y[i] + 0.8 * r);
            context.closePath();
          }
        }
        Object.assign(context, { fillStyle: colour, globalAlpha: opacity });
        context.fill();
        context.globalAlpha = 1;
      };
      paintDots.end = () => {};
      return paintDots;
    }

    /** Paint dots as small squares into an image: as paths, tens of thousands would take too long. */
    function squaresOn(context) {
      const { width, height } = dots;
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const side = Math.max(2, Math.round(3 * size.ratio));
      const paintDots = (some, shape, colour, opacity) => {
        const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
        const value = ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
        for (const i of some) {
          const left = Math.round(x[i] * size.ratio - side / 2);
          const top = Math.round(y[i] * size.ratio - side / 2);
          for (let row = top; row < top + side; row++) pixels.fill(value, row * width + left, row * width + left + side);
        }
      };
      paintDots.end = () => context.putImageData(image, 0, 0);
      return paintDots;
    }

    /** Draw what lies over the dots: the ring around one, and the lasso. */
    function drawMarks() {
      const { width, height, ratio } = size;
      const context = resize(marks, Math.round(width * ratio), Math.round(height * ratio));
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      context.strokeStyle = context.fillStyle = colour("--ink");
      context.lineWidth = 2;
      if (focus >= 0) {
        context.beginPath();
        context.arc(x[focus], y[focus], 8, 0, 2 * Math.PI);
        context.stroke();
      }
      if (lasso) {
        drawLasso(context);
        context.stroke();
        context.globalAlpha = 0.1;
        context.fill();
        context.globalAlpha = 1;
      }
    }

    function drawLasso(context) {
      context.beginPath();
      for (const point of lasso) context.lineTo(point.x, point.y);
      context.closePath();
    }

    function nearest(place, reach) {
      let best = -1;
      let least = reach * reach;
      for (let i = 0; i < n; i++) {
        const distance = (x[i] - place.x) ** 2 + (y[i] - place.y) ** 2;
        if (distance < least && !isFaint(i)) [best, least] = [i, distance];
      }
      return best;
    }

    /** The nearest dot in a direction; one far to the side counts as farther away. */
    function neighbour(dx, dy) {
      const here = focus < 0 ? { x: size.width / 2, y: size.height / 2 } : { x: x[focus], y: y[focus] };
      if (focus < 0) return nearest(here, Infinity);
      let best = focus;
      let least = Infinity;
      for (let i = 0; i < n; i++) {
        const along = (x[i] - here.x) * dx + (y[i] - here.y) * dy;
        const beside = (x[i] - here.x) * dy - (y[i] - here.y) * dx;
        const distance = along ** 2 + 4 * beside ** 2;
        if (along > 0.01 && distance < least && !isFaint(i)) [best, least] = [i, distance];
      }
      return best;
    }

    /** Show the image of a dot: its picture where the page has one, else what its scores tell. */
    function show(dot) {
      if (dot < 0 || dot === focus) return;
      focus = dot;
      drawMarks();
      showCard();
    }

    function showCard() {
      const picture = find("card-picture");
      const cell = sheet && sheet.cellOf.get(focus);
      const hasImage = cell !== undefined && cell !== null && sheet.image.complete;
      if (hasImage) paintThumbnail(picture, cell);
      else if (basis) paint(picture, sumOf(scores.map(({ scale, integers }) => scale * integers[focus])), basis.panels);
      picture.hidden = !hasImage && !basis;
      picture.classList.toggle("reconstruction", !hasImage);
      find("card-kind").textContent = hasImage
        ? ""
        : basis
          ? `Reconstruction from ${scores.length} components: the page has no picture of this image.`
          : "";
      find("card-name").textContent = names[focus];
      find("card-label").textContent = labelOf ? plot.labels[labelOf[focus]] : "";
      const shown = [...new Set([axis("across"), axis("up")])].filter((number) => number !== ORDER);
      const texts = shown.map((number) => `PC ${number + 1}: ${numberText(columnOf(number)[focus], 3)}`);
      find("card-scores").textContent = [`image ${positions[focus]}`, ...texts].join(" · ");
      find("card").classList.remove("empty");
    }

    // -- Chosen images --

    function choose(change) {
      for (let i = 0; i < n; i++) chosen[i] = change(i);
      draw();
      const some = [];
      let count = 0;
      for (let i = 0; i < n; i++) {
        if (chosen[i] && count++ < NAMES_SHOWN) some.push(names[i]);
      }
      find("names").textContent = some.join("\n");
      find("names").hidden = find("copy").disabled = find("clear").disabled = !count;
      const numberShown = count > NAMES_SHOWN ? `; the first ${NAMES_SHOWN.toLocaleString("en")} names are shown` : "";
      find("count").textContent = count
        ? `${count.toLocaleString("en")} image${count > 1 ? "s" : ""} chosen${numberShown}.`
        : "No image is chosen.";
    }

    const toggle = (dot) => choose((i) => (i === dot ? !chosen[i] : chosen[i]));

    /** Choose the dots inside the lasso: it is filled on a canvas, and a dot is inside where that is not empty. */
    function chooseInside(more) {
      const { width, height } = size;
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      drawLasso(context);
      context.fill();
      const { data: pixels, width: stride } = context.getImageData(0, 0, width, height);
      const isInside = (i) => pixels[4 * (Math.round(y[i]) * stride + Math.round(x[i])) + 3] > 127;
      lasso = null;
      choose((i) => (more && chosen[i]) || (!isFaint(i) && isInside(i)));
    }

    /** Copy all chosen names, by the event: it needs no permission, and works in files and frames. */
    function copyNames() {
      const all = names.filter((_, i) => chosen[i]).join("\n");
      const fill = (event) => {
        event.clipboardData.setData("text/plain", all);
        event.preventDefault();
      };
      document.addEventListener("copy", fill, { once: true });
      const done = document.execCommand("copy");
      document.removeEventListener("copy", fill);
      find("copied").textContent = done ? "Copied." : "This browser copies nothing here: copy the text below.";
    }

    // -- Mouse, touch, keyboard --

    const placeOf = (event) => ({ x: event.offsetX, y: event.offsetY });
    const draws = () => find("lasso").getAttribute("aria-pressed") === "true";

    marks.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      if (event.pointerType === "mouse" || draws()) {
        marks.setPointerCapture(event.pointerId);
        lasso = [placeOf(event)];
      } else show(nearest(placeOf(event), 40));
    });
    marks.addEventListener("pointermove", (event) => {
      const place = placeOf(event);
      if (lasso) {
        const last = lasso[lasso.length - 1];
        if (Math.hypot(place.x - last.x, place.y - last.y) < 3) return;
        lasso.push(place);
        drawMarks();
      } else if (event.pointerType === "mouse") show(nearest(place, 24));
    });
    marks.addEventListener("pointerup", (event) => {
      if (!lasso) return;
      if (lasso.length > 2) return chooseInside(event.shiftKey);
      lasso = null;
      const dot = nearest(placeOf(event), event.pointerType === "mouse" ? 12 : 40);
      show(dot);
      if (dot >= 0) toggle(dot);
    });
    marks.addEventListener("pointercancel", () => {
      lasso = null;
      drawMarks();
    });

    const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    marks.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in ARROWS) show(neighbour(...ARROWS[event.key]));
      else if (event.key === "Home") show(0);
      else if (event.key === "End") show(n - 1);
      else if ((event.key === "Enter" || event.key === " ") && focus >= 0) toggle(focus);
      else if (event.key === "Escape") choose(() => false);
      else return;
      event.preventDefault();
    });

    find("lasso").addEventListener("click", () => {
      find("lasso").setAttribute("aria-pressed", String(!draws()));
      marks.classList.toggle("draws", draws());
    });
    find("copy").addEventListener("click", copyNames);
    find("clear").addEventListener("click", () => choose(() => false));

    // -- Axes and labels --

    const axes = [...data.titles.keys(), ORDER];
    const [firstAcross, firstUp] = data.titles.length > 1 ? [0, 1] : [ORDER, 0];
    for (const [id, first] of [["across", firstAcross], ["up", firstUp]]) {
      for (const number of axes) find(id).add(new Option(title(number), number, false, number === first));
      find(id).addEventListener("change", () => {
        draw();
        if (focus >= 0) showCard();
      });
    }

    function startLegend() {
      plot.labels.forEach((text, number) => {
        const mark = document.createElement("span");
        mark.textContent = SHAPES[styleOf(number)];
        mark.style.color = number < N_STYLES ? `var(--c${number % N_COLOURS})` : "var(--grey)";
        const button = Object.assign(document.createElement("button"), { type: "button" });
        button.setAttribute("aria-pressed", "false");
        button.append(mark, " ", Object.assign(document.createElement("bdi"), { textContent: text }));
        button.addEventListener("click", () => {
          shade = shade === number ? -1 : number;
          for (const other of find("legend").children) {
            other.setAttribute("aria-pressed", String(shade >= 0 && other === button));
          }
          draw();
        });
        find("legend").append(button);
      });
    }

    if (labelOf) startLegend();
    if (sheet) sheet.image.addEventListener("load", () => focus >= 0 && showCard());
    find("explorer").hidden = false;
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = marks;
      size = { width, height, ratio: window.devicePixelRatio || 1 };
      draw();
    }).observe(marks);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      colours.clear();
      draw();
    });
  }

  if (basis) startMixer();
  if (basis && data.rows.length) startReconstructions();
  if (data.plot) startExplorer();
  document.documentElement.classList.add("alive"); // what the script replaces is hidden on screens
})();
