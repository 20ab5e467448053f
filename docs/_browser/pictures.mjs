// The reader's own pictures as a stereo pair. They do not leave the browser.
import {shrink} from "./drawing.mjs";

const LARGEST = 25_000_000; // bytes of a file

// The middle squares of one or two pictures, in grey levels [2, side, side]; of one, both are the same.
export async function readPictures(files, side) {
  const views = await Promise.all(files.slice(0, 2).map((file) => readPicture(file, side)));
  const levels = new Uint8Array(2 * side * side);
  levels.set(views[0]);
  levels.set(views.at(-1), side * side);
  return levels;
}

async function readPicture(file, side) {
  if (file.size > LARGEST) throw new Error(`${file.name} has more than ${LARGEST / 1e6} MB: make it smaller.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be read as a picture: choose a PNG, JPEG or WebP file.`);
  }
  const edge = Math.min(bitmap.width, bitmap.height), read = Math.max(side, Math.min(edge, 8 * side));
  const canvas = new OffscreenCanvas(read, read), brush = canvas.getContext("2d");
  brush.fillStyle = "#fff"; // behind what is transparent
  brush.fillRect(0, 0, read, read);
  brush.drawImage(bitmap, (bitmap.width - edge) / 2, (bitmap.height - edge) / 2, edge, edge, 0, 0, read, read);
  bitmap.close();
  const {data} = brush.getImageData(0, 0, read, read);
  const grey = (row, column) => {
    const place = 4 * (row * read + column);
    return 0.299 * data[place] + 0.587 * data[place + 1] + 0.114 * data[place + 2];
  };
  return Uint8Array.from(shrink(grey, read, read, side, side), Math.round);
}
